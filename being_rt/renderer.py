"""Drawing an avatar: FLAME parameters in, 8-bit pictures out."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Avatar, Camera, Gaussians
from being_rt.errors import DeviceError, InvalidParameterError

if TYPE_CHECKING:
    from being_rt.flame.params import FlameParams

Format = Literal["rgb", "rgba", "nv12"]
Background = tuple[float, float, float] | NDArray[np.uint8] | Literal["transparent"] | None
Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]

LARGEST_SIDE = 8192  # pixels
PARAMETERS = ("expression", "rotation", "neck", "jaw", "eyes", "translation", "eyelids")


class Layers(NamedTuple):
    """A frame with what lies behind the picture."""

    picture: UInt8  # [H, W, 3]
    alpha: Float32  # [H, W] 0..1, how much of the person covers the pixel
    depth: Float32  # [H, W] metres along the camera's axis, expected over what is seen; 0 where alpha is 0


class Renderer:
    """Draws one avatar at one size; keep it, and call :meth:`render` for every frame.

    The same parameters give the same picture, byte for byte, whatever the number of threads and whatever was drawn
    before. Methods come from Kerbl et al., "3D Gaussian splatting for real-time radiance field rendering", 2023, and
    the papers that the native code names; :mod:`being_rt.reference` is the readable twin. Python's interpreter lock is
    free while a frame is drawn; one instance draws one frame at a time.

    Args:
        avatar: the person.
        size: width, height in pixels, 1 to 8192 each.
        device: "cpu". "cuda" needs a build that has the CUDA renderer.
        threads: how many draw together, 1 to 256; None or 0: one per core that this process may use, 16 at most.
        camera: instead of the avatar's own; rescaled to ``size`` by :meth:`Camera.resized`.
        background: None (the avatar's own picture), an RGB colour of floats 0..1, a picture uint8 [H, W, 3] (resized),
            or "transparent" (black where the format has no alpha).

    Raises:
        InvalidParameterError: a size, camera, background or avatar that cannot be drawn.
        DeviceError: the device does not exist or is not in this build.

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
    ) -> None:
        _check_device(device)
        self.avatar = avatar
        self.size = _check_size(size)
        from being_rt import _C

        self._engine = _C.Engine(_arrays(avatar), threads=threads or default_threads())
        self._camera: Camera | None = None
        self._set_camera(camera or avatar.camera)
        plate = background_picture(avatar.background if background is None else background, self.size)
        self._engine.set_background(plate)

    @property
    def threads(self) -> int:
        """How many threads draw."""
        return self._engine.threads

    @property
    def simd(self) -> str:
        """The instruction set in use: "baseline", "avx2" or "avx512". BEING_RT_SIMD in the environment overrides it."""
        return self._engine.simd

    @property
    def memory(self) -> int:
        """Bytes that the native side holds: the packed avatar and the buffers of a frame."""
        return self._engine.memory

    def render(
        self,
        params: FlameParams,
        out: UInt8 | None = None,
        format: Format = "rgb",
        camera: Camera | None = None,
    ) -> UInt8:
        """Draw one frame.

        Args:
            params: one frame of motion (T = 1).
            out: where to draw, C-contiguous, of the result's shape; None: a new array.
            format: "rgb": [H, W, 3] over the background. "rgba": [H, W, 4], straight alpha, without background. "nv12":
                [H * 3 / 2, W], BT.709 limited range, over the background; even sizes only.
            camera: for this frame and the following ones, until another is given; rescaled to the renderer's size.

        Returns:
            uint8 array, ``out`` where it was given.

        Raises:
            InvalidParameterError: T is not 1, values are not finite, ``out`` does not fit, or an unknown format.
        """
        return self._draw(params, out, format, camera)

    def render_layers(self, params: FlameParams, camera: Camera | None = None) -> Layers:
        """Draw one frame with its coverage and depth; arguments as :meth:`render`.

        Example::

            picture, alpha, depth = renderer.render_layers(params)
        """
        width, height = self.size
        alpha, depth = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
        return Layers(self._draw(params, None, "rgb", camera, alpha, depth), alpha, depth)

    def stage_times(self) -> dict[str, float]:
        """Milliseconds that each stage of the last frame took, in order; their sum is the frame."""
        return self._engine.stage_times()

    def splats(self) -> dict[str, NDArray[Any]]:
        """The last frame's Gaussians as they were projected, head's then torso's, in the avatar's order.

        ``visible`` bool [N]; and where it is True: ``mean`` [N, 2] px, ``conic`` [N, 3] (xx, xy, yy of the inverse
        covariance, px^-2), ``opacity`` [N], ``colour`` [N, 3], ``depth`` [N] metres, float32.
        """
        return self._engine.splats()

    def _draw(
        self,
        params: FlameParams,
        out: UInt8 | None,
        format: Format,
        camera: Camera | None,
        alpha: Float32 | None = None,
        depth: Float32 | None = None,
    ) -> UInt8:
        if camera is not None and camera is not self._camera:
            self._set_camera(camera)
        if out is None:
            out = np.empty(_shape(format, self.size), np.uint8)
        values: dict[str, Any] = {name: getattr(params, name) for name in PARAMETERS}
        self._engine.render(**values, out=out, format=format, alpha=alpha, depth=depth)
        return out

    def _set_camera(self, camera: Camera) -> None:
        scaled = camera.resized(self.size)
        self._engine.set_camera(scaled.world_to_camera, scaled.intrinsics, *self.size)
        self._camera = camera


def usable_cores() -> int:
    """Cores that this process may use, which in a container or under taskset are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads() -> int:
    """One per usable core; more than 16 do not draw a frame any faster."""
    return min(16, usable_cores())


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
            return _resized(background, size)
    elif background is not None:
        colour = np.asarray(background, np.float64)
        if colour.shape == (3,) and np.isfinite(colour).all() and colour.min() >= 0 and colour.max() <= 1:
            return np.broadcast_to((colour * 255).round().astype(np.uint8), (height, width, 3)).copy()
    raise InvalidParameterError(
        "background must be None, three floats 0..1, a picture uint8 [H, W, 3] or 'transparent', "
        f"got {_description(background)}"
    )


def _resized(picture: UInt8, size: tuple[int, int]) -> UInt8:
    if picture.shape[:2] == (size[1], size[0]):
        return np.ascontiguousarray(picture)
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


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


def _check_device(device: str) -> None:
    if device == "cuda":
        raise DeviceError("this build of being_rt has no CUDA renderer; use device='cpu'")
    if device != "cpu":
        raise DeviceError(f"device must be 'cpu' or 'cuda', got {device!r}")


def _arrays(avatar: Avatar) -> dict[str, Any]:
    """What the native engine packs, by the names that its messages use."""
    rig, seam = avatar.rig, avatar.seam
    arrays: dict[str, Any] = {field.name: getattr(rig, field.name) for field in fields(rig)}
    for name, gaussians in (("head", avatar.head.gaussians), ("torso", avatar.torso.gaussians)):
        arrays |= {f"{name}.{field.name}": getattr(gaussians, field.name) for field in fields(Gaussians)}
    arrays |= {"head.face": avatar.head.face, "head.barycentric": avatar.head.barycentric}
    arrays["torso.weights"] = avatar.torso.weights
    if avatar.network is not None and avatar.network.count:
        arrays |= {field.name: getattr(avatar.network, field.name) for field in fields(avatar.network)}
    arrays |= {f"seam.{field.name}": getattr(seam, field.name) for field in fields(seam)}
    arrays["antialiased"] = avatar.antialiased
    return {name: _contiguous(value) for name, value in arrays.items()}


def _contiguous(value: Any) -> Any:
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
