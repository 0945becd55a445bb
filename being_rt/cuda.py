"""Frames on a CUDA device: who draws them there, and how they are handed on without leaving it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from math import prod
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import DeviceError, InvalidParameterError

if TYPE_CHECKING:
    from being_rt import _C
    from being_rt.avatar.avatar import Camera
    from being_rt.flame.params import FlameParams

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Shape = tuple[int, ...]

FRAMES_KEPT = 3  # frames of one format that are valid at once: one drawn, one copied, one looked at
LEGACY_STREAM = 1  # the handle of CUDA's default stream where a handle of 0 means something else
DLPACK_CUDA = 2
NO_SYNCHRONISATION = -1  # DLPack: a consumer that wants no waiting


class CudaArray(Protocol):
    """Memory of a CUDA device as PyTorch, CuPy and Numba offer it."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


class DeviceFrame:
    """A frame on its way to, or in, device memory: what ``draw`` returns, at once.

    It lies in one of three buffers that the frames of a format take in turn: three more draws of the format and it is
    gone, which every method here reports, but a tensor made of it cannot. Read it before that on the stream that it
    was drawn on, or finish reading it, or draw into memory of your own with ``out``.

    PyTorch, CuPy, Numba and JAX take it as it is, without a copy, and may read it at once: handing it over waits until
    it is complete.

    Example::

        frame = renderer.draw(params, format="rgba")
        tensor = torch.from_dlpack(frame)  # uint8 [H, W, 4] on the device
        array = cupy.asarray(frame)
    """

    __slots__ = ("_backend", "_number", "_out", "_place", "_stream", "shape")

    shape: Shape  # [H, W, C], or [H * 3 / 2, W] for NV12; of a batch: [S, ...]

    def __init__(
        self, backend: CudaBackend, number: int, shape: Shape, place: _Place | None, out: Any, stream: Any
    ) -> None:
        self.shape = shape
        self._backend = backend
        self._number = number
        self._place = place  # None: drawn into `out`
        self._out = out
        self._stream = stream  # held, so that its owner does not destroy it with work on it

    def wait(self) -> bool:
        """Wait until the frame is complete.

        Returns:
            True if it had to be drawn again: it needed longer lists than any before it, and they have grown.

        Raises:
            DeviceError: a later frame has taken its memory, or the device failed.
        """
        self._check()
        return self._backend.engine.wait(self._number)

    def numpy(self) -> UInt8:
        """The frame in host memory, complete: pinned memory that is used again once the array is gone."""
        return self.download().result()

    def download(self) -> HostFrame:
        """Start copying to the host and return at once; the copy runs beside the frames that follow.

        Example::

            coming = None
            for params in motion:
                going, coming = coming, renderer.draw(params).download()
                if going is not None:
                    show(going.result())

        Raises:
            DeviceError: the frame was drawn into memory of the caller's, or a later one has taken its memory.
        """
        self._check()
        if self._place is None:
            raise DeviceError("a frame that was drawn into `out` is copied by its owner, such as out.cpu(), out.get()")
        if self._place.download is None:
            self._place.download = HostFrame(self)
        return self._place.download

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self.wait()
        pointer = self._place.buffer.pointer if self._place else self._out.__cuda_array_interface__["data"][0]
        return {
            "shape": self.shape,
            "typestr": "|u1",
            "data": (pointer, False),
            "strides": None,
            "stream": None,  # complete: nothing to wait for
            "version": 3,
        }

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule of uint8; it keeps the memory, though not its contents. ``stream`` -1: do not wait."""
        if copy:
            raise BufferError("a frame is handed over without a copy")
        if dl_device is not None and (int(dl_device[0]), int(dl_device[1])) != self.__dlpack_device__():
            raise BufferError(f"the frame is on CUDA device {self._backend.device}; move it after it is handed over")
        if stream == NO_SYNCHRONISATION:
            self._check()
        else:
            self.wait()
        return self._place.buffer.dlpack(self.shape) if self._place else self._out.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return DLPACK_CUDA, self._backend.device

    def _check(self) -> None:
        if self._place is not None and self._place.frame != self._number:
            raise DeviceError(
                f"a later frame has taken this one's memory: use a frame before {FRAMES_KEPT} more are drawn, "
                "or draw it into `out`"
            )


class HostFrame:
    """A frame on its way to the host; see :meth:`DeviceFrame.download`."""

    __slots__ = ("_frame", "_picture")

    def __init__(self, frame: DeviceFrame) -> None:
        self._frame: DeviceFrame | None = frame  # None: the copy is complete
        self._picture = self._copy(frame)

    def result(self) -> UInt8:
        """Wait for the copy. The array is the caller's for as long as it lives.

        Raises:
            DeviceError: the device failed.
        """
        frame = self._frame
        if frame is not None and frame._place is not None:
            if frame._backend.engine.wait(frame._number):
                self._picture = self._copy(frame)
            frame._backend.engine.wait_for_copy(frame._place.buffer)
            frame._place.download = self._frame = None
        return self._picture

    @staticmethod
    def _copy(frame: DeviceFrame) -> UInt8:
        assert frame._place is not None
        return frame._backend.engine.start_copy(frame._number, frame._place.buffer, frame.shape)


class CudaBackend:
    """Draws sessions of avatars together, each frame of all of them one graph. Renderer and BatchRenderer own one.

    Args:
        avatars: what the native engine packs, by name.
        sessions: which of them each session draws.
        size: width, height in pixels.
        device: index of the CUDA device.
        graph: False launches stage by stage and times the stages.
        shape_of: the shape of a frame by its format; raises for a format that is none.
    """

    threads = 0
    simd = ""

    def __init__(
        self,
        avatars: Sequence[Mapping[str, Any]],
        sessions: Sequence[int],
        size: tuple[int, int],
        device: int,
        graph: bool,
        shape_of: Callable[[str], Shape],
    ) -> None:
        from being_rt import _C

        self.engine = _C.CudaEngine(list(avatars), list(sessions), *size, device=device, graph=graph)
        self.device = device
        self._buffer = _C.CudaBuffer
        self._shape_of = shape_of
        self._rings: dict[str, _Ring] = {}
        self._layers: tuple[_C.CudaBuffer, _C.CudaBuffer] | None = None
        self._one_at_a_time = RLock()  # the interpreter's is free while the engine works

    @property
    def memory(self) -> int:
        """Bytes on the device: avatars, stages, output buffers."""
        buffers = [place.buffer for ring in self._rings.values() for place in ring.places]
        return self.engine.memory + sum(buffer.size for buffer in [*buffers, *(self._layers or ())])

    def set_camera(self, session: int, camera: Camera) -> None:
        """``camera`` is of the renderer's size."""
        self.engine.set_camera(session, camera.world_to_camera, camera.intrinsics)

    def set_background(self, session: int, picture: UInt8 | None) -> None:
        self.engine.set_background(session, picture)

    def draw(self, params: FlameParams, format: str, stream: Any, out: CudaArray | None) -> DeviceFrame:
        with self._one_at_a_time:
            ring = self._rings.get(format) or self._new_ring(format)
            if out is None:
                return self._draw_kept(ring, params, format, 0, 0, stream)
            pointer, working = _device_memory(out, ring.shape, self.device)
            handle = working if stream is None else stream_handle(stream)
            number = self._submit(params, format, None, pointer, 0, 0, handle)
            return DeviceFrame(self, number, ring.shape, None, out, stream)

    def render(self, params: FlameParams, out: Any, format: str) -> Any:
        with self._one_at_a_time:
            if out is None:
                return self.draw(params, format, None, None).numpy()
            if not isinstance(out, np.ndarray):
                self.draw(params, format, None, out).wait()
                return out
            _check_out(out, self._shape_of(format))
            frame = self.draw(params, format, None, None)
            frame.wait()
            assert frame._place is not None
            self.engine.copy_into(frame._number, frame._place.buffer, out)
            return out

    def layers(self, params: FlameParams) -> tuple[UInt8, Float32, Float32]:
        """Picture [H, W, 3], coverage [H, W] and depth [H, W] of the only session."""
        with self._one_at_a_time:
            ring = self._rings.get("rgb") or self._new_ring("rgb")
            height, width, _ = ring.shape
            if self._layers is None:
                self._layers = self._new_buffer(4 * height * width), self._new_buffer(4 * height * width)
            alpha, depth = self._layers
            frame = self._draw_kept(ring, params, "rgb", alpha.pointer, depth.pointer, None)
            frame.wait()
            copies = []
            for buffer in self._layers:
                copies.append(self.engine.start_copy(frame._number, buffer, (height, 4 * width)).view(np.float32))
                self.engine.wait_for_copy(buffer)
            return frame.numpy(), copies[0], copies[1]

    def stage_times(self) -> dict[str, float]:
        return self.engine.stage_times()

    def splats(self) -> dict[str, NDArray[Any]]:
        return self.engine.splats()

    def _draw_kept(
        self, ring: _Ring, params: FlameParams, format: str, alpha: int, depth: int, stream: Any
    ) -> DeviceFrame:
        """Draw into the ring's next place."""
        place = ring.places[ring.turn]
        if place.download is not None:  # must be complete before the next frame takes its memory
            place.download.result()
        handle = 0 if stream is None else stream_handle(stream)
        place.frame = number = self._submit(params, format, place.buffer, 0, alpha, depth, handle)
        ring.turn = (ring.turn + 1) % FRAMES_KEPT
        return DeviceFrame(self, number, ring.shape, place, None, stream)

    def _submit(
        self,
        params: FlameParams,
        format: str,
        buffer: _C.CudaBuffer | None,
        pixels: int,
        alpha: int,
        depth: int,
        stream: int,
    ) -> int:
        return self.engine.submit(
            params.expression,
            params.rotation,
            params.neck,
            params.jaw,
            params.eyes,
            params.translation,
            params.eyelids,
            format,
            buffer,
            pixels,
            alpha,
            depth,
            stream,
        )

    def _new_ring(self, format: str) -> _Ring:
        shape = self._shape_of(format)
        ring = _Ring(shape, [_Place(self._new_buffer(prod(shape))) for _ in range(FRAMES_KEPT)])
        self._rings[format] = ring
        return ring

    def _new_buffer(self, size: int) -> _C.CudaBuffer:
        return self._buffer(self.device, size)


class _Place:
    """Device memory, the frame that has it, and the copy of that frame that is on its way, if any."""

    __slots__ = ("buffer", "download", "frame")

    def __init__(self, buffer: _C.CudaBuffer) -> None:
        self.buffer = buffer
        self.frame = 0
        self.download: HostFrame | None = None


class _Ring:
    """The places that the frames of one format take in turn."""

    __slots__ = ("places", "shape", "turn")

    def __init__(self, shape: Shape, places: list[_Place]) -> None:
        self.shape, self.places, self.turn = shape, places, 0


def check_device(device: str) -> int | None:
    """The index of a CUDA device by its name, "cuda" or "cuda:N", that this build can use; None for "cpu".

    Raises:
        DeviceError: no such name, no such device, a device that this build has no code for, or no CUDA in this build.
    """
    if device == "cpu":
        return None
    kind, _, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    if kind != "cuda" or device == "cuda:" or not (number or "0").isdecimal() or len(number) > 9:
        raise DeviceError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    from being_rt import _C

    if not _C.cuda_built:
        raise DeviceError(
            "this build of being_rt has no CUDA renderer; rebuild it with BEING_RT_CUDA=1 pip install . "
            "or use device='cpu'"
        )
    index = int(number or "0")
    _C.check_cuda_device(index)
    return index


def stream_handle(stream: Any) -> int:
    """A stream's handle as the engine takes it. An int, or a stream of PyTorch, CuPy, Numba or CUDA's own Python.

    Raises:
        InvalidParameterError: not a stream.
    """
    if isinstance(stream, int):
        handle: Any = stream
    elif hasattr(stream, "__cuda_stream__"):
        handle = stream.__cuda_stream__()[1]
    else:
        handle = getattr(stream, "cuda_stream", getattr(stream, "ptr", None))
    if not isinstance(handle, int) or isinstance(stream, bool) or handle < 0:
        raise InvalidParameterError(
            "stream must be None, a handle, or an object with cuda_stream, ptr or __cuda_stream__, "
            f"got {type(stream).__name__}"
        )
    return handle or LEGACY_STREAM


def _device_memory(out: CudaArray, shape: Shape, device: int) -> tuple[int, int]:
    """Where an array lies, and the stream that its library works on (0: none that we know).

    Raises:
        InvalidParameterError: not uint8 of this shape, C-contiguous, writable and on the device.
    """
    try:
        interface = out.__cuda_array_interface__
    except (AttributeError, RuntimeError, TypeError):  # a tensor in host memory has no such attribute
        raise InvalidParameterError(
            f"out must be a NumPy array or memory of a CUDA device, uint8 {list(shape)}, got {type(out).__name__}"
        ) from None
    got_shape, kind = tuple(interface["shape"]), interface["typestr"]
    if kind.lstrip("|<>=") != "u1" or got_shape != shape:
        raise InvalidParameterError(f"out must be uint8 {list(shape)}, got {kind} {list(got_shape)}")
    strides = interface.get("strides")
    if strides is not None and not _contiguous(shape, strides):
        raise InvalidParameterError("out must be C-contiguous")
    pointer, read_only = interface["data"]
    if read_only:
        raise InvalidParameterError("out is read-only")
    if hasattr(out, "__dlpack_device__") and (index := int(out.__dlpack_device__()[1])) != device:
        raise InvalidParameterError(f"out is on CUDA device {index}, the renderer on device {device}")
    if (working := interface.get("stream")) is not None:
        return pointer, stream_handle(working)
    if type(out).__module__.split(".")[0] == "torch":  # its interface does not tell
        return pointer, stream_handle(sys.modules["torch"].cuda.current_stream(device).cuda_stream)
    return pointer, 0


def _contiguous(shape: Shape, strides: Sequence[int]) -> bool:
    expected = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != expected:
            return False
        expected *= side
    return True


def _check_out(out: NDArray[Any], shape: Shape) -> None:
    if out.dtype != np.uint8 or out.shape != shape:
        raise InvalidParameterError(f"out must be uint8 {list(shape)}, got {out.dtype} {list(out.shape)}")
    if not out.flags.c_contiguous:
        raise InvalidParameterError("out must be C-contiguous")
    if not out.flags.writeable:
        raise InvalidParameterError("out is read-only")
