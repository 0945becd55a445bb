"""The built-in speech driver: a small viseme network for the mouth, and behaviour for all else. NumPy alone, no GPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.audio.features import SAMPLE_RATE
from being_rt.audio.stream import AudioStream
from being_rt.errors import InvalidParameterError
from being_rt.flame.model import ExpressionMap
from being_rt.flame.params import MAXIMUM_FPS, FlameParams
from being_rt.motion.analysis import Heard, SpeechAnalyzer
from being_rt.motion.articulation import Articulation
from being_rt.motion.behaviour import Behaviour
from being_rt.motion.driver import MotionDriver, MotionFrame
from being_rt.motion.viseme_network import STEP, load_weights

MAXIMUM_LOOK_AHEAD = 0.1
JAW_OPEN = 0.30  # radians of jawOpen = 1 where no expression map is given


class VisemeDriver(MotionDriver):
    """Speech to motion, streaming, deterministic, about 2 % of a core.

    Args:
        expression_map: how the face that is driven makes ARKit's shapes (``FlameModel.expression_map``); without it
            only the jaw, eyes, eyelids and head move.
        fps: frames per second, any in (0, 1000].
        look_ahead: seconds of sound after a frame's time that it waits for, 0 to 0.1. Less is faster and less accurate
            (docs/motion.md has the figures).
        seed: of blinks, glances and head movements; the same seed gives the same motion.
        liveliness: scales movements of head and brows; 0 is still, 1 natural.
        articulation: scales the opening of the mouth; 1 natural.
        smile: 0..1, a lasting smile.

    Raises:
        InvalidParameterError: a value out of range.

    Example::

        driver = VisemeDriver(model.expression_map, fps=25)
        for chunk in microphone:
            for frame in driver.push(chunk, 48000):
                show(renderer.render(frame.params))
    """

    def __init__(
        self,
        expression_map: ExpressionMap | None = None,
        fps: float = 25.0,
        look_ahead: float = 0.1,
        seed: int = 0,
        *,
        liveliness: float = 1.0,
        articulation: float = 1.0,
        smile: float = 0.0,
    ) -> None:
        for name, value, low, high in (
            ("look_ahead", look_ahead, 0.0, MAXIMUM_LOOK_AHEAD),
            ("liveliness", liveliness, 0.0, 2.0),
            ("articulation", articulation, 0.0, 1.5),
            ("smile", smile, 0.0, 1.0),
        ):
            if not low <= value <= high:
                raise InvalidParameterError(f"{name} must be {low:g} to {high:g}, got {value}")
        if not 0 < fps <= MAXIMUM_FPS:
            raise InvalidParameterError(f"fps must lie in (0, {MAXIMUM_FPS:g}], got {fps}")
        if seed < 0:
            raise InvalidParameterError(f"seed must not be negative, got {seed}")
        self.fps, self.look_ahead = float(fps), float(look_ahead)
        self._map, self._smile = expression_map, smile
        self._audio, self._analyzer = AudioStream(), SpeechAnalyzer()
        self._articulation = Articulation(load_weights().look_ahead_ms, look_ahead, articulation)
        self._behaviour = Behaviour(seed, liveliness)
        self.reset()

    def reset(self) -> None:
        """Forget everything, as if newly made."""
        for part in (self._audio, self._analyzer, self._articulation, self._behaviour):
            part.reset()
        self._frame = self._step = 0
        self._early: list[MotionFrame] = []

    def push(self, pcm: NDArray[np.generic], sample_rate: int) -> list[MotionFrame]:
        """See `MotionDriver.push`."""
        frames = self._early + self._drawn(self._analyzer.push(self._audio.push(pcm, sample_rate)))
        # Without look-ahead a frame can be drawn for the very end of the sound so far, which may be the end of all.
        known = sum(frame.time < self._audio.duration for frame in frames)
        self._early = frames[known:]
        return frames[:known]

    def flush(self) -> list[MotionFrame]:
        """See `MotionDriver.flush`."""
        total = int(np.ceil(self._audio.duration * self.fps - 1e-6))
        frames = self._early + self._drawn(self._analyzer.push(self._audio.flush()))
        silence = np.zeros(round(STEP * SAMPLE_RATE), np.float32)
        while self._frame < total:
            frames += self._drawn(self._analyzer.push(silence))
        surplus = self._frame - total
        self.reset()
        return frames[: len(frames) - surplus]

    def _drawn(self, steps: list[Heard]) -> list[MotionFrame]:
        frames = []
        for heard in steps:
            self._step += 1
            drawn_next = max(0.0, self._step * STEP - self.look_ahead)
            self._articulation.hear(heard, drawn_next)
            self._behaviour.hear(heard, drawn_next)
            while self._due() <= self._step:
                time = self._frame / self.fps
                frames.append(MotionFrame(time, self._params(time)))
                self._frame += 1
        return frames

    def _due(self) -> int:
        """The step at which the next frame is drawn: the last one that ends within its look-ahead, at least one."""
        return max(1, int((self._frame / self.fps + self.look_ahead) / STEP + 1e-6))

    def _params(self, time: float) -> FlameParams:
        shape, pose = self._articulation.weights(time), self._behaviour.pose(time)
        shape["mouthSmileLeft"] += self._smile * 0.5
        shape["mouthSmileRight"] += self._smile * 0.5
        offsets = self._offsets(shape | pose.weights)
        offsets["eyes"][[0, 1, 3, 4]] += np.tile(pose.gaze, 2).astype(np.float32)
        offsets["eyelids"] += pose.eyelids.astype(np.float32)
        return FlameParams(
            expression=offsets["expression"][None],
            rotation=pose.rotation[None].astype(np.float32),
            neck=pose.neck[None].astype(np.float32),
            jaw=offsets["jaw"][None],
            eyes=offsets["eyes"][None],
            translation=pose.translation[None].astype(np.float32),
            eyelids=np.clip(offsets["eyelids"], 0, 1)[None],
            fps=self.fps,
        )

    def _offsets(self, weights: dict[str, float]) -> dict[str, NDArray[np.float32]]:
        if self._map is not None:
            return self._map.offsets(np.array([weights.get(name, 0.0) for name in self._map.names], np.float32))
        jaw = np.array([JAW_OPEN * weights["jawOpen"], 0, 0], np.float32)
        widths = {name: columns.stop - columns.start for name, columns in ExpressionMap.COLUMNS.items()}
        return {name: np.zeros(width, np.float32) for name, width in widths.items()} | {"jaw": jaw}
