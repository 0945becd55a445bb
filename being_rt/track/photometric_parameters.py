"""Which parameters of a frame are refined, and what is believed of them before anything is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.train.tracks import COLUMNS

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class _Unit(NamedTuple):
    """Standard deviations of a parameter's correction, and of its second difference between frames at 25 fps; and by
    how much it is varied to see what it does."""

    correction: float
    acceleration: float
    step: float


# Corrections: what landmarks leave open; of the pose, how shoulders may lie to a head that stays. Accelerations: of the
# translation, which carries the shoulders, less than a sitting person does, so that what the head does is explained by
# its neck where it can be. Steps: some tenths of a pixel. Metres, radians, and the parameters' own units.
_UNITS = {
    "rotation": _Unit(0.03, 0.01, 0.003),
    "neck": _Unit(0.03, 0.01, 0.003),
    "jaw": _Unit(0.03, 0.05, 0.01),
    "eyes": _Unit(0.05, 0.1, 0.015),
    "translation": _Unit(0.01, 0.0001, 0.001),
    "eyelids": _Unit(0.1, 1.0, 0.03),
    "expression": _Unit(0.5, 0.5, 0.15),  # first and last in parts of each coefficient's own deviation over the clip
}
POSE = ("rotation", "neck", "translation")
_INDICES = {"eyes": (0, 1, 3, 4)}  # eyes do not roll
_FLOOR = 0.1  # of the coefficients' mean deviation, added to each one's own


@dataclass(frozen=True)
class Parameters:
    """P parameters of a frame that are refined.

    Example::

        own = Parameters.of(dataset.rig, dataset.params, expressions=20)
        x = packed_row(dataset.params)[:, own.columns]
    """

    columns: Int64  # [P] of a packed row, :data:`being_rt.train.tracks.COLUMNS`
    names: tuple[str, ...]  # [P] fields that they belong to
    correction: Float64  # [P]
    acceleration: Float64  # [P]
    steps: Float64  # [P]

    @classmethod
    def of(cls, rig: Rig, params: FlameParams, expressions: int) -> Parameters:
        """Pose, jaw, gaze, lids, and the ``expressions`` coefficients that move this face most in this motion."""
        used = params.expression.astype(np.float64).std(0)
        reach = np.sqrt((rig.expression_basis.astype(np.float64) ** 2).sum((0, 1)))
        chosen = np.sort(np.argsort(-used * reach, kind="stable")[:expressions])
        columns, names, units = [], [], []
        for name, unit in _UNITS.items():
            part = COLUMNS[name]
            own = chosen.tolist() if name == "expression" else _INDICES.get(name, range(part.stop - part.start))
            for index in own:
                columns.append(part.start + index)
                names.append(name)
                spread = used[index] + _FLOOR * used.mean() + 1e-3 if name == "expression" else 1.0
                units.append((unit.correction * spread, unit.acceleration, unit.step * spread))
        return cls(np.array(columns), tuple(names), *np.array(units).T)

    def only(self, *fields: str) -> Parameters:
        """Those that belong to fields."""
        kept = self.chosen(*fields)
        names = tuple(self.names[i] for i in kept)
        return Parameters(self.columns[kept], names, self.correction[kept], self.acceleration[kept], self.steps[kept])

    def chosen(self, *fields: str) -> Int64:
        """Which of the P belong to fields."""
        return np.flatnonzero(np.isin(self.names, fields))

    def limited(self, x: Float64, given: Float64) -> Float64:
        """Values [T, P] within what eyelids can do, or have done in ``given``."""
        lids = self.chosen("eyelids")
        result = x.copy()
        result[:, lids] = np.clip(x[:, lids], np.minimum(0, given[:, lids]), np.maximum(1, given[:, lids]))
        return result
