"""Drawing an avatar: FLAME parameters in, 8-bit pictures out, on the CPU or a CUDA device."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Avatar, Camera, Gaussians
from being_rt.cuda import CudaArray, CudaBackend, DeviceFrame, check_device
from being_rt.errors import DeviceError, InvalidParameterError
from being_rt.parallel import usable_cores

if TYPE_CHECKING:
    from being_rt.flame.params import FlameParams

Format = Literal["rgb", "rgba", "nv12"]
Background = tuple[float, float, float] | NDArray[np.uint8] | Literal["transparent"] | None
Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

LARGEST_SIDE = 8192  # pixels
USUAL_THREADS = 16  # at most; more do not draw a frame any faster
_DRAW_NEEDS_CUDA = "draw needs a CUDA device; with device='cpu' use render"
MOST_SESSIONS = 65535


class Layers(NamedTuple):
    """A frame with what lies behind the picture."""

    picture: UInt8  # [H, W, 3]
    alpha: Float32  # [H, W] 0..1, how much of the person covers the pixel
    depth: Float32  # [H, W] metres along the camera's axis, expected over what is seen; 0 where alpha is 0


class Renderer:
    """Draws one avatar at one size; keep it, and call :meth:`render` for every frame.

    The same parameters give the same picture, byte for byte, on the same device, whatever the number of threads and
    whatever was drawn before. CPU and CUDA round differently: nearly all pixels are within 1/255 of each other, and
    both keep the same distance from :mod:`being_rt.reference`, the readable twin. Methods come from Kerbl et al., "3D
    Gaussian splatting for real-time radiance field rendering", 2023, and the papers that the native code names.
    Python's interpreter lock is free while a frame is drawn. Threads may share an instance, which draws one frame at a
    time, each with the camera that its call names.

    Args:
        avatar: the person.
        size: width, height in pixels, 1 to 8192 each.
        device: "cpu", "cuda" (the first CUDA device) or "cuda:N". See :func:`default_device`.
        threads: how many CPU threads draw together, 1 to 256; None or 0: one per core that this process may use, 16 at
            most. Nothing on CUDA.
        camera: instead of the avatar's own; rescaled to ``size`` by :meth:`Camera.resized`.
        background: None (the avatar's own picture), an RGB colour of floats 0..1, a picture uint8 [H, W, 3] (resized),
            or "transparent" (black where the format has no alpha).
        graph: CUDA only. True: a frame is one CUDA graph. False: its stages are launched one by one and timed.

    Raises:
        InvalidParameterError: a size, camera, background or avatar that cannot be drawn.
        DeviceError: the device does not exist, has too little memory or is not in this build.

    Example::

        from being_rt import FlameParams, Renderer, demo_avatar

        renderer = Renderer(demo_avatar(), size=(1920, 1080))
        picture = renderer.render(FlameParams.neutral())  # uint8 [1080, 1920, 3]
    """

    def __init__(
        self,
        avatar: Avatar,
        size: tuple[int, int] = (1920, 1080),
        device: str = "cpu",
        threads: int | None = None,
        camera: Camera | None = None,
        background: Background = None,
        graph: bool = True,
    ) -> None:
        index = check_device(device)
        self.avatar = avatar
        self.size = _check_size(size)
        self.device = "cpu" if index is None else f"cuda:{index}"
        self._backend: _CpuBackend | CudaBackend
        if index is None:
            self._backend = _CpuBackend(avatar, self.size, threads)
        else:
            self._backend = CudaBackend(
                [_arrays(avatar)], [0], self.size, index, graph, lambda format: _shape(format, self.size)
            )
        self._drawing = threading.Lock()  # a camera and the frame that is drawn with it belong together
        self._camera: Camera | None = None
        self._set_camera(camera or avatar.camera)
        plate = background_picture(avatar.background if background is None else background, self.size)
        self._backend.set_background(0, plate)
        self._range = _profiling_range("render"), _profiling_range("draw")

    @property
    def threads(self) -> int:
        """How many CPU threads draw; 0 on CUDA."""
        return self._backend.threads

    @property
    def simd(self) -> str:
        """The CPU's instruction set in use: "baseline", "avx2" or "avx512"; empty on CUDA.

        BEING_RT_SIMD in the environment overrides it.
        """
        return self._backend.simd

    @property
    def memory(self) -> int:
        """Bytes that the native side holds, on the device: the packed avatar and the buffers of a frame."""
        return self._backend.memory

    def render(
        self,
        params: FlameParams,
        out: UInt8 | CudaArray | None = None,
        format: Format = "rgb",
        camera: Camera | None = None,
    ) -> UInt8:
        """Draw one frame and return when it is complete.

        Args:
            params: one frame of motion (T = 1).
            out: where to draw, C-contiguous, of the result's shape; None: a new array, on CUDA in pinned memory that is
                used again once the array is gone. On CUDA also anything with ``__cuda_array_interface__`` on the
                renderer's device, such as a tensor or a CuPy array: the frame is drawn straight into it.
            format: "rgb": [H, W, 3] over the background. "rgba": [H, W, 4], straight alpha, without background. "nv12":
                [H * 3 / 2, W], BT.709 limited range, over the background; even sizes only.
            camera: for this frame and the following ones, until another is given; rescaled to the renderer's size.

        Returns:
            uint8 array, ``out`` where it was given.

        Raises:
            InvalidParameterError: T is not 1, values are not finite, ``out`` does not fit, or an unknown format.
            DeviceError: the device failed or has too little memory.
        """
        with self._range[0], self._drawing:
            self._use(camera)
            return self._backend.render(params, out, format)

    def draw(
        self,
        params: FlameParams,
        format: Format = "rgb",
        camera: Camera | None = None,
        stream: Any = None,
        out: CudaArray | None = None,
    ) -> DeviceFrame:
        """CUDA only: put one frame on its way and return at once. It stays on the device.

        Args:
            params, format, camera: as :meth:`render`.
            stream: to draw on: a handle (0: CUDA's default stream), a stream of PyTorch or CuPy, or an object with
                ``__cuda_stream__``. None: the renderer's own, or with ``out`` the one that the array's library works
                on. A frame starts after the one before it, whatever the streams.
            out: device memory to draw into, as in :meth:`render`; it must live until the frame is complete. None: one
                of three buffers of the renderer's own, see :class:`DeviceFrame`.

        Raises:
            InvalidParameterError: as :meth:`render`, or not a stream.
            DeviceError: the renderer draws on the CPU, the stream is another device's, or the device failed.

        Example::

            frame = renderer.draw(params, stream=torch.cuda.current_stream())
            tensor = torch.from_dlpack(frame)  # uint8 [H, W, 3], no copy
        """
        with self._range[1], self._drawing:
            backend = self._backend
            if not isinstance(backend, CudaBackend):
                raise DeviceError(_DRAW_NEEDS_CUDA)
            self._use(camera)
            return backend.draw(params, format, stream, out)

    def render_layers(self, params: FlameParams, camera: Camera | None = None) -> Layers:
        """Draw one frame with its coverage and depth; arguments as :meth:`render`.

        Example::

            picture, alpha, depth = renderer.render_layers(params)
        """
        with self._drawing:
            self._use(camera)
            return Layers(*self._backend.layers(params))

    def stage_times(self) -> dict[str, float]:
        """Milliseconds that each stage of the last frame took, in order; their sum is the frame.

        On CUDA they are measured with ``graph=False`` alone, and zero otherwise: a graph is one launch.
        """
        return self._backend.stage_times()

    def splats(self) -> dict[str, NDArray[Any]]:
        """The last frame's Gaussians as they were projected, head's then torso's, in the avatar's order.

        ``visible`` bool [N]; and where it is True: ``mean`` [N, 2] px, ``conic`` [N, 3] (xx, xy, yy of the inverse
        covariance, px^-2), ``opacity`` [N], ``colour`` [N, 3], ``depth`` [N] metres, float32.
        """
        return self._backend.splats()

    def _use(self, camera: Camera | None) -> None:
        if camera is not None and camera is not self._camera:
            self._set_camera(camera)

    def _set_camera(self, camera: Camera) -> None:
        self._backend.set_camera(0, camera.resized(self.size))
        self._camera = camera


class BatchRenderer:
    """Draws many people at once: every frame is one picture per session, and on CUDA one submission for all of them.

    A session is one stream of video: an avatar with a camera and a background of its own. Each session's picture is
    the one that a :class:`Renderer` of that avatar draws on the same device, byte for byte.

    Args:
        avatars: the people; each is packed once, however many sessions show it.
        sessions: for each session, the index of its avatar.
        size: width, height in pixels, the same for all.
        device: as for :class:`Renderer`. On "cpu" the sessions are drawn one after the other.
        cameras: one per session; None, for all or for one: the avatar's own.
        backgrounds: one per session, as for :class:`Renderer`; None: the avatar's own.
        graph: as for :class:`Renderer`.

    Raises:
        InvalidParameterError: a session without an avatar, or as for :class:`Renderer`. On CUDA also avatars whose
            offset networks differ in rank.
        DeviceError: the device does not exist, has too little memory or is not in this build.

    Example::

        batch = BatchRenderer([ada, ben], sessions=[0, 0, 1], size=(1280, 720))
        pictures = batch.render(params)  # T = 3 in, uint8 [3, 720, 1280, 3] out
    """

    def __init__(
        self,
        avatars: Sequence[Avatar],
        sessions: Sequence[int],
        size: tuple[int, int] = (1920, 1080),
        device: str = "cuda",
        cameras: Sequence[Camera | None] | None = None,
        backgrounds: Sequence[Background] | None = None,
        graph: bool = True,
    ) -> None:
        index = check_device(device)
        self.avatars = tuple(avatars)
        self.size = _check_size(size)
        self.sessions = _check_sessions(sessions, len(self.avatars))
        self.device = "cpu" if index is None else f"cuda:{index}"
        count = len(self.sessions)
        cameras = _one_per_session("cameras", cameras, count)
        backgrounds = _one_per_session("backgrounds", backgrounds, count)
        self._renderers: list[Renderer] = []
        self._cuda: CudaBackend | None = None
        if index is None:
            for i, avatar in enumerate(self.sessions):
                self._renderers.append(
                    Renderer(self.avatars[avatar], self.size, camera=cameras[i], background=backgrounds[i])
                )
        else:
            packed = [_arrays(avatar) for avatar in self.avatars]
            self._cuda = CudaBackend(packed, self.sessions, self.size, index, graph, self._shape)
            plates: dict[int, UInt8 | None] = {}  # one picture may stand behind many
            for i, avatar in enumerate(self.sessions):
                self.set_camera(i, cameras[i] or self.avatars[avatar].camera)
                background = backgrounds[i] if backgrounds[i] is not None else self.avatars[avatar].background
                if id(background) not in plates:
                    plates[id(background)] = background_picture(background, self.size)
                self._cuda.set_background(i, plates[id(background)])
        self._range = _profiling_range("render"), _profiling_range("draw")

    @property
    def memory(self) -> int:
        """Bytes that the native side holds."""
        return self._cuda.memory if self._cuda else sum(renderer.memory for renderer in self._renderers)

    def render(self, params: FlameParams, out: UInt8 | CudaArray | None = None, format: Format = "rgb") -> UInt8:
        """Draw one frame of every session and return when all are complete.

        Args:
            params: T = number of sessions; frame i is session i's.
            out, format: as :meth:`Renderer.render`, with the sessions as leading axis.

        Returns:
            uint8 [S, H, W, 3], or what the format says; ``out`` where it was given.

        Raises:
            As :meth:`Renderer.render`.
        """
        with self._range[0]:
            if self._cuda:
                return self._cuda.render(params, out, format)
            count, shape = len(self.sessions), self._shape(format)
            if len(params) != count:
                raise InvalidParameterError(
                    f"a frame of {count} sessions needs params with T = {count}, got T = {len(params)}"
                )
            if out is None:
                out = np.empty(shape, np.uint8)
            elif not isinstance(out, np.ndarray) or out.shape != shape:
                raise InvalidParameterError(f"out must be uint8 {list(shape)}, got {_description(out)}")
            pictures = cast(UInt8, out)
            for i, renderer in enumerate(self._renderers):
                renderer.render(params[i], out=pictures[i], format=format)
            return pictures

    def draw(
        self, params: FlameParams, format: Format = "rgb", stream: Any = None, out: CudaArray | None = None
    ) -> DeviceFrame:
        """CUDA only: put one frame of every session on its way and return at once; as :meth:`Renderer.draw`."""
        with self._range[1]:
            if self._cuda is None:
                raise DeviceError(_DRAW_NEEDS_CUDA)
            return self._cuda.draw(params, format, stream, out)

    def set_camera(self, session: int, camera: Camera) -> None:
        """The camera of one session from the next frame on; rescaled to the batch's size.

        Raises:
            InvalidParameterError: no such session, or a camera that cannot be drawn with.
        """
        if not 0 <= session < len(self.sessions):
            raise InvalidParameterError(f"session must be 0 to {len(self.sessions) - 1}, got {session}")
        if self._cuda:
            self._cuda.set_camera(session, camera.resized(self.size))
        else:
            self._renderers[session]._set_camera(camera)

    def stage_times(self) -> dict[str, float]:
        """Milliseconds by stage, of all sessions together; as :meth:`Renderer.stage_times`."""
        if self._cuda:
            return self._cuda.stage_times()
        times = [renderer.stage_times() for renderer in self._renderers]
        return {stage: sum(each[stage] for each in times) for stage in times[0]}

    def _shape(self, format: str) -> tuple[int, ...]:
        return len(self.sessions), *_shape(format, self.size)


def default_device() -> str:
    """The device to draw on where nobody chose: the first CUDA device that this build can use, or else "cpu".

    BEING_RT_DEVICE in the environment overrides it.
    """
    if (chosen := os.environ.get("BEING_RT_DEVICE", "auto")) not in ("", "auto"):
        return chosen
    from being_rt import _C

    try:
        devices = _C.cuda_devices() if _C.cuda_built else []
    except DeviceError:
        devices = []
    usable = [index for index, device in enumerate(devices) if device["supported"]]
    return f"cuda:{usable[0]}" if usable and usable[0] else "cuda" if usable else "cpu"


def background_picture(background: Background, size: tuple[int, int]) -> UInt8 | None:
    """A background as :class:`Renderer` takes it, as a picture uint8 [H, W, 3]; None for "transparent".

    Raises:
        InvalidParameterError: neither a colour nor a picture nor "transparent".
    """
    width, height = size
    if isinstance(background, str):
        if background == "transparent":
            return None
    elif isinstance(background, np.ndarray):
        if background.dtype == np.uint8 and background.ndim == 3 and background.shape[2] == 3 and background.size:
            return _covering(background, size)
    elif background is not None:
        colour = np.asarray(background, np.float64)
        if colour.shape == (3,) and np.isfinite(colour).all() and colour.min() >= 0 and colour.max() <= 1:
            return np.broadcast_to((colour * 255).round().astype(np.uint8), (height, width, 3)).copy()
    raise InvalidParameterError(
        "background must be None, three floats 0..1, a picture uint8 [H, W, 3] or 'transparent', "
        f"got {_description(background)}"
    )


class _CpuBackend:
    """The CPU engine, behind the methods that :class:`CudaBackend` has."""

    def __init__(self, avatar: Avatar, size: tuple[int, int], threads: int | None) -> None:
        from being_rt import _C

        self._engine = _C.Engine(_arrays(avatar), threads=threads or min(usable_cores(), USUAL_THREADS))
        self._size = size

    @property
    def threads(self) -> int:
        return self._engine.threads

    @property
    def simd(self) -> str:
        return self._engine.simd

    @property
    def memory(self) -> int:
        return self._engine.memory

    def set_camera(self, session: int, camera: Camera) -> None:
        self._engine.set_camera(camera.world_to_camera, camera.intrinsics, *self._size)

    def set_background(self, session: int, picture: UInt8 | None) -> None:
        self._engine.set_background(picture)

    def render(
        self,
        params: FlameParams,
        out: Any,
        format: str,
        alpha: Float32 | None = None,
        depth: Float32 | None = None,
    ) -> UInt8:
        if out is None:
            out = np.empty(_shape(format, self._size), np.uint8)
        self._engine.render(
            params.expression,
            params.rotation,
            params.neck,
            params.jaw,
            params.eyes,
            params.translation,
            params.eyelids,
            out,
            format,
            alpha,
            depth,
        )
        return out

    def layers(self, params: FlameParams) -> tuple[UInt8, Float32, Float32]:
        width, height = self._size
        alpha, depth = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
        return self.render(params, None, "rgb", alpha, depth), alpha, depth

    def stage_times(self) -> dict[str, float]:
        return self._engine.stage_times()

    def splats(self) -> dict[str, NDArray[Any]]:
        return self._engine.splats()


def _profiling_range(name: str) -> AbstractContextManager[Any]:
    """A range that Nsight shows, in the domain being_rt, where the package nvtx is installed and not disabled."""
    if os.environ.get("NVTX_DISABLE"):
        return nullcontext()
    try:
        nvtx: Any = importlib.import_module("nvtx")
    except ImportError:
        return nullcontext()
    return nvtx.annotate(name, domain="being_rt")


def _covering(picture: UInt8, size: tuple[int, int]) -> UInt8:
    """The picture at a size: of another shape, its middle, as large as fills it. Nothing is stretched."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return np.ascontiguousarray(picture)
    from PIL import Image

    scale = max(size[0] / width, size[1] / height)
    aside, above = (width - size[0] / scale) / 2, (height - size[1] / scale) / 2
    box = (max(aside, 0.0), max(above, 0.0), min(width - aside, width), min(height - above, height))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC, box))


def _description(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)


def _shape(format: str, size: tuple[int, int]) -> tuple[int, ...]:
    width, height = size
    shapes: dict[str, tuple[int, ...]] = {
        "rgb": (height, width, 3),
        "rgba": (height, width, 4),
        "nv12": (height * 3 // 2, width),
    }
    if format not in shapes:
        raise InvalidParameterError(f"format must be 'rgb', 'rgba' or 'nv12', got {format!r}")
    return shapes[format]


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    try:
        width, height = (int(side) for side in size)
        whole = (width, height) == tuple(size)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or not (1 <= width <= LARGEST_SIDE and 1 <= height <= LARGEST_SIDE):
        raise InvalidParameterError(f"size must be width, height of 1 to {LARGEST_SIDE} pixels, got {size!r}")
    return width, height


def _check_sessions(sessions: Sequence[int], avatars: int) -> tuple[int, ...]:
    checked = tuple(int(index) for index in sessions)
    if not 1 <= len(checked) <= MOST_SESSIONS:
        raise InvalidParameterError(f"sessions must be 1 to {MOST_SESSIONS}, got {len(checked)}")
    for index in checked:
        if not 0 <= index < avatars:
            raise InvalidParameterError(f"a session names avatar {index}, there are {avatars}")
    return checked


def _one_per_session(name: str, values: Sequence[Any] | None, count: int) -> Sequence[Any]:
    if values is None:
        return [None] * count
    if isinstance(values, str) or len(values) != count:
        raise InvalidParameterError(f"{name} must be one per session, {count}, got {_description(values)}")
    return values


def _arrays(avatar: Avatar) -> dict[str, Any]:
    """What the native engine packs, by the names that its messages use."""
    rig, seam = avatar.rig, avatar.seam
    arrays: dict[str, Any] = {field.name: getattr(rig, field.name) for field in fields(rig)}
    for name, gaussians in (("head", avatar.head.gaussians), ("torso", avatar.torso.gaussians)):
        arrays |= {f"{name}.{field.name}": getattr(gaussians, field.name) for field in fields(Gaussians)}
    arrays |= {"head.face": avatar.head.face, "head.barycentric": avatar.head.barycentric}
    arrays |= {f"torso.{name}": getattr(avatar.torso, name) for name in ("weights", "response", "response_range")}
    if avatar.network is not None and avatar.network.count:
        arrays |= {field.name: getattr(avatar.network, field.name) for field in fields(avatar.network)}
    arrays |= {f"seam.{field.name}": getattr(seam, field.name) for field in fields(seam)}
    arrays["antialiased"] = avatar.antialiased
    return {name: _contiguous(value) for name, value in arrays.items()}


def _contiguous(value: Any) -> Any:
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
