"""What is likely of a motion before any landmark is seen: ranges, smoothness over time, eyes that turn together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.track.fit_config import FitConfig, Trajectory
from being_rt.track.fit_rig import EXPRESSION, EYELIDS, FIXED_COLUMNS, GAZE, JAW, ROTATION, TRANSLATION

Float64 = NDArray[np.float64]

# Soft limits: column, low, high, deviation of what lies beyond.
JAW_OPEN = (-0.01, 0.7)
_JAW_SLACK, _LID_SLACK = 0.02, 0.02


@dataclass(frozen=True)
class Bands:
    """A symmetric matrix over T frames of P parameters, diagonal in the parameters but for the frame itself."""

    blocks: Float64  # [T, P, P]
    first: Float64  # [T - 1, P] between a frame and the next
    second: Float64  # [T - 2, P] between a frame and the next but one


@dataclass(frozen=True)
class MotionPrior:
    """Quadratic costs of trajectories [T, P], P = 15 + E."""

    spread: Float64  # [P] inverse variances
    speed: Float64  # [P] of first differences
    acceleration: Float64  # [P] of second differences
    vergence: Float64  # [2] of what the eyes differ by
    low: Float64  # [P]
    high: Float64  # [P]
    slack: Float64  # [P] inverse variance of what lies beyond

    @classmethod
    def of(cls, config: FitConfig, expressions: int, step: float) -> MotionPrior:
        """The prior of frames that lie ``step`` seconds apart."""
        count = FIXED_COLUMNS + expressions
        spread, speed, acceleration = np.zeros((3, count))

        def put(columns: slice, prior: Trajectory) -> None:
            spread[columns] = prior.spread**-2.0
            speed[columns] = (prior.speed * step**0.5) ** -2.0
            acceleration[columns] = (prior.acceleration * step**1.5) ** -2.0

        put(ROTATION, config.rotation)
        put(TRANSLATION, config.translation)
        put(JAW, config.jaw_sideways)
        put(slice(JAW.start, JAW.start + 1), config.jaw)
        put(GAZE, config.gaze)
        put(EYELIDS, config.eyelids)
        put(EXPRESSION, config.expression)
        low, high, slack = np.full(count, -np.inf), np.full(count, np.inf), np.zeros(count)
        low[JAW.start], high[JAW.start] = JAW_OPEN
        slack[JAW.start] = _JAW_SLACK**-2.0
        low[EYELIDS], high[EYELIDS], slack[EYELIDS] = 0, 1, _LID_SLACK**-2.0
        vergence = np.array(config.vergence) ** -2.0
        return cls(spread, speed, acceleration, vergence, low, high, slack)

    def cost(self, frames: Float64) -> float:
        """Half the weighted sum of squares."""
        total = np.sum(frames**2 @ self.spread)
        total += np.sum(np.diff(frames, axis=0) ** 2 @ self.speed)
        total += np.sum(np.diff(frames, 2, axis=0) ** 2 @ self.acceleration)
        total += np.sum(self._apart(frames) ** 2 @ self.vergence)
        total += np.sum(self._beyond(frames) ** 2 @ self.slack)
        return 0.5 * float(total)

    def equations(self, frames: Float64) -> tuple[Bands, Float64]:
        """Second and first derivatives of :meth:`cost`: bands, and the gradient [T, P]."""
        count, columns = frames.shape
        beyond = self._beyond(frames)
        diagonal = self.spread + np.where(beyond != 0, self.slack, 0.0)
        gradient = frames * self.spread + beyond * self.slack
        diagonal = diagonal + np.zeros_like(frames)
        first, second = np.zeros((max(count - 1, 0), columns)), np.zeros((max(count - 2, 0), columns))

        slope = np.diff(frames, axis=0) * self.speed
        for shift, sign in ((0, -1), (1, 1)):
            part = slice(shift, shift + len(slope))
            gradient[part] += sign * slope
            diagonal[part] += self.speed
        first -= self.speed
        bend = np.diff(frames, 2, axis=0) * self.acceleration
        for shift, factor in ((0, 1), (1, -2), (2, 1)):
            part = slice(shift, shift + len(bend))
            gradient[part] += factor * bend
            diagonal[part] += factor * factor * self.acceleration
        first[: len(bend)] -= 2 * self.acceleration
        first[1 : 1 + len(bend)] -= 2 * self.acceleration
        second += self.acceleration

        blocks = np.zeros((count, columns, columns))
        np.einsum("tpp->tp", blocks)[:] = diagonal
        apart = self._apart(frames) * self.vergence
        left, right = slice(GAZE.start, GAZE.start + 2), slice(GAZE.start + 2, GAZE.stop)
        gradient[:, left] += apart
        gradient[:, right] -= apart
        for eye, other in ((left, right), (right, left)):
            blocks[:, eye, eye] += np.diag(self.vergence)
            blocks[:, eye, other] -= np.diag(self.vergence)
        return Bands(blocks, first, second), gradient

    def _apart(self, frames: Float64) -> Float64:
        gaze = frames[:, GAZE]
        return gaze[:, :2] - gaze[:, 2:]

    def _beyond(self, frames: Float64) -> Float64:
        return frames - np.clip(frames, self.low, self.high)
