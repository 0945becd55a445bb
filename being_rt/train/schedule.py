"""Learning rates of the parameters over a run."""

from __future__ import annotations

from collections.abc import Iterable

from being_rt.train.config import LearningRates

# All presets have the same torso layer. It begins at a guessed depth, with guessed weights, and has far to go.
_TORSO = LearningRates(position=5e-4, position_end=5e-6, torso_weights=0.05)
# Metres at the start and at the end: depth of the sheet that it is put on, and how it answers the motion.
_SHEET = {"relief": (3e-3, 1e-5), "response": (1e-3, 2e-6)}


def learning_rates(rates: LearningRates, names: Iterable[str], progress: float) -> dict[str, float]:
    """The rate of each named parameter at ``progress`` 0..1: exponential decay, ``r(p) = r_0 (r_1 / r_0)^p``.

    Positions have an end of their own, as in Kerbl et al., "3D Gaussian splatting", 2023, section 5.1.
    """
    progress = min(max(progress, 0.0), 1.0)
    return {name: _rate(rates if not name.startswith("torso.") else _TORSO, name, progress) for name in names}


def _rate(rates: LearningRates, name: str, progress: float) -> float:
    field = name.split(".", 1)[1]
    if field in _SHEET:
        return _decayed(*_SHEET[field], progress)
    if field == "position":
        return _decayed(rates.position, rates.position_end, min(progress / rates.position_until, 1.0))
    start = {
        "rotation": rates.rotation,
        "log_scale": rates.log_scale,
        "opacity_logit": rates.opacity,
        "colour": rates.colour,
        "barycentric": rates.barycentric,
        "basis": rates.basis,
        "skinning_logit": rates.torso_weights,
        "template": rates.template,
    }.get(field, rates.network)
    return _decayed(start, start * rates.end, progress)


def _decayed(start: float, end: float, progress: float) -> float:
    if start <= 0 or end <= 0:
        return start + (end - start) * progress
    return float(start * (end / start) ** progress)
