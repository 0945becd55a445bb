"""What is likely of a motion before any landmark is seen: ranges, smoothness over time, eyes that turn together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from being_rt.track.fit_config import FitConfig, Trajectory
from being_rt.track.fit_rig import EXPRESSION, EYELIDS, FIXED_COLUMNS, GAZE, JAW, PLACE, POSE, ROTATION

Float64 = NDArray[np.float64]

# Soft limits: column, low, high, deviation of what lies beyond.
JAW_OPEN = (-0.01, 0.7)
WINDOW = 7  # frames
STIFF = 36.0  # as LIVELY, for a start from which noise has not been taken yet
LIVELY = 0.5  # mean square acceleration, in that of a resting head, from which a head is believed to turn
POSE_COLUMNS = range(POSE.start, POSE.stop)
LIDS = (-0.5, 1.0)  # some people open their eyes wider than the model
_JAW_SLACK, _LID_SLACK = 0.02, 0.02


@dataclass(frozen=True)
class Bands:
    """A symmetric matrix over T frames of P parameters, diagonal in the parameters but for the frame itself."""

    blocks: Float64  # [T, P, P]
    first: Float64  # [T - 1, P] between a frame and the next
    second: Float64  # [T - 2, P] between a frame and the next but one


@dataclass(frozen=True)
class MotionPrior:
    """Costs of trajectories [T, P], P = 15 + E: quadratic, but for the acceleration of the head.

    A head rests or moves. At rest, noise of a few hundredths of a degree shakes the shoulders that hang on it; a prior
    that quiets this noise would make turns smaller, and cut off nods. So the mean square u of the acceleration over
    :data:`WINDOW` frames and the six coordinates of the pose, in units of a resting head's, costs u / (1 + u / lively)
    (Geman and McClure's function) beside what any motion's costs. A cost that grows without end, be it as slowly as a
    logarithm, would draw at all turns, and bring the camera nearer to explain why they are so small. The function is
    concave in u, so its tangents, which are quadratic in the motion, lie above it, and these are what is solved (Black
    and Rangarajan, "On the unification of line processes, outlier rejection, and robust statistics", IJCV 19(1), 1996).
    """

    spread: Float64  # [P] inverse variances
    speed: Float64  # [P] of first differences
    acceleration: Float64  # [P] of second differences of what moves
    vergence: Float64  # [2] of what the eyes differ by
    low: Float64  # [P]
    high: Float64  # [P]
    slack: Float64  # [P] inverse variance of what lies beyond
    rest: float  # deviation of second differences of what rests, in that of what moves
    lively: float = LIVELY

    @classmethod
    def of(cls, config: FitConfig, expressions: int, step: float, successive: bool = True) -> MotionPrior:
        """The prior of frames that lie ``step`` seconds apart; nothing of accelerations if they are not successive."""
        count = FIXED_COLUMNS + expressions
        spread, speed, acceleration = np.zeros((3, count))

        def put(columns: slice, prior: Trajectory) -> None:
            spread[columns] = prior.spread**-2.0
            speed[columns] = (prior.speed * step**0.5) ** -2.0
            acceleration[columns] = (prior.acceleration * step**1.5) ** -2.0 if successive else 0.0

        put(ROTATION, config.rotation)
        put(PLACE, config.place)
        put(slice(PLACE.stop - 1, PLACE.stop), config.nearness)
        put(JAW, config.jaw_sideways)
        put(slice(JAW.start, JAW.start + 1), config.jaw)
        put(GAZE, config.gaze)
        put(EYELIDS, config.eyelids)
        put(EXPRESSION, config.expression)
        low, high, slack = np.full(count, -np.inf), np.full(count, np.inf), np.zeros(count)
        low[JAW.start], high[JAW.start] = JAW_OPEN
        slack[JAW.start] = _JAW_SLACK**-2.0
        low[EYELIDS], high[EYELIDS], slack[EYELIDS] = *LIDS, _LID_SLACK**-2.0
        vergence = np.array(config.vergence) ** -2.0
        return cls(spread, speed, acceleration, vergence, low, high, slack, config.rest)

    def cost(self, frames: Float64) -> float:
        """Half the weighted sum of squares."""
        total = np.sum(frames**2 @ self.spread)
        total += np.sum(np.diff(frames, axis=0) ** 2 @ self.speed)
        lively = self._liveliness(frames)
        total += len(POSE_COLUMNS) * np.sum(lively / (1 + lively / self.lively))
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
        resting = _around((1 + self._liveliness(frames) / self.lively) ** -2.0)[:, None]
        stiffness = (1 + resting / self.rest**2) * self.acceleration
        bend = np.diff(frames, 2, axis=0) * stiffness
        for shift, factor in ((0, 1), (1, -2), (2, 1)):
            part = slice(shift, shift + len(bend))
            gradient[part] += factor * bend
            diagonal[part] += factor * factor * stiffness
        first[: len(bend)] -= 2 * stiffness
        first[1 : 1 + len(bend)] -= 2 * stiffness
        second += stiffness

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

    def _liveliness(self, frames: Float64) -> Float64:
        """The mean square acceleration [T - 2] of the head around a frame, 1 at rest."""
        bend = np.diff(frames, 2, axis=0) ** 2 @ self.acceleration
        return _around(bend / (self.rest**2 * len(POSE_COLUMNS)))

    def _apart(self, frames: Float64) -> Float64:
        gaze = frames[:, GAZE]
        return gaze[:, :2] - gaze[:, 2:]

    def _beyond(self, frames: Float64) -> Float64:
        return frames - np.clip(frames, self.low, self.high)


def _around(values: Float64) -> Float64:
    """Means [n] over :data:`WINDOW` frames."""
    from scipy.ndimage import uniform_filter1d

    return np.asarray(uniform_filter1d(values, WINDOW, mode="constant")) if len(values) else values
