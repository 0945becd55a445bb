"""Learning rates of the parameters over a run."""

from __future__ import annotations

from collections.abc import Iterable

from being_rt.train.config import LearningRates

# All presets have the same torso layer. It begins at a guessed depth, with guessed weights, and has far to go.
_TORSO = LearningRates(position=5e-4, position_end=5e-6, torso_weights=0.05)
# Adam's epsilon, in parts of what gradients of the torso usually are. One camera hardly sees how deep a Gaussian lies,
# and not at all what is behind a head: with no epsilon both go wherever the noise of their gradients takes them.
_TORSO_EPSILON = 0.1
# Metres, at the start and at the end: of the depth of the sheet that it is put on. Much of it no frame shows: at higher
# rates that wanders, the farther the longer a run is.
_RELIEF = 2e-4, 5e-6
# How it answers the motion, metres, and from which share of the run on. Only what its depth does not explain is an
# answer: a sway that is learned before the sheet's depth takes its place, and other sides show a flat body.
_RESPONSE, _RESPONSE_START = (4e-4, 2e-6), 0.25
_FACTORED = ("head.", "torso.", "network.")  # what has a rate that the factor is on
_NOT_YET = 1e-12  # a rate of 0 would say that it is never trained


def learning_rates(rates: LearningRates, names: Iterable[str], progress: float) -> dict[str, float]:
    """The rate of each named parameter at ``progress`` 0..1: exponential decay, ``r(p) = r_0 (r_1 / r_0)^p``.

    Positions have an end of their own, as in Kerbl et al., "3D Gaussian splatting", 2023, section 5.1.
    """
    progress = min(max(progress, 0.0), 1.0)
    result = {}
    for name in names:
        rate = _rate(_TORSO if name.startswith("torso.") else rates, name, progress)
        result[name] = rate * rates.factor if name.startswith(_FACTORED) else rate
    return result


def epsilon_shares(names: Iterable[str]) -> dict[str, float]:
    """Of those of the named parameters whose epsilon is not left alone: what ``FusedAdam.raise_epsilons`` takes."""
    return {name: _TORSO_EPSILON for name in names if name.startswith("torso.")}


def _rate(rates: LearningRates, name: str, progress: float) -> float:
    field = name.split(".", 1)[1]
    if field == "relief":
        return _decayed(*_RELIEF, progress)
    if field == "response":
        return _decayed(*_RESPONSE, progress) if progress >= _RESPONSE_START else _NOT_YET
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
