"""ARKit's 52 blend shapes as a linear map into this head's parameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.model import ExpressionMap
from being_rt.flame.procedural.expressions import JAW_OPEN

ARKIT_NAMES = (
    "eyeBlinkLeft",
    "eyeLookDownLeft",
    "eyeLookInLeft",
    "eyeLookOutLeft",
    "eyeLookUpLeft",
    "eyeSquintLeft",
    "eyeWideLeft",
    "eyeBlinkRight",
    "eyeLookDownRight",
    "eyeLookInRight",
    "eyeLookOutRight",
    "eyeLookUpRight",
    "eyeSquintRight",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawRight",
    "jawOpen",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthLeft",
    "mouthRight",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "noseSneerLeft",
    "noseSneerRight",
    "tongueOut",
)

_GAZE = 0.42  # radians at eyeLook* = 1, about the reach of a glance without turning the head
_JAW, _EYES, _EYELIDS = 100, 103, 109  # first column of each block in ExpressionMap.matrix

# ARKit name (of a pair: without its side) -> named fields and their weights. Left and right are the subject's own.
_FIELDS: dict[str, dict[str, float]] = {
    "eyeSquint": {"eyeSquint": 1.0},
    "eyeWide": {"eyeWide": 1.0},
    "jawForward": {"jawForward": 1.0},
    "jawLeft": {"jawSide": 1.0},
    "jawRight": {"jawSide": -1.0},
    "mouthClose": {"mouthClose": 1.0},
    "mouthFunnel": {"funnel": 1.0},
    "mouthPucker": {"pucker": 1.0},
    "mouthLeft": {"mouthSide": 1.0},
    "mouthRight": {"mouthSide": -1.0},
    "mouthSmile": {"smile": 1.0},
    "mouthFrown": {"frown": 1.0},
    "mouthDimple": {"dimple": 1.0},
    "mouthStretch": {"stretch": 1.0},
    "mouthRollLower": {"rollLower": 1.0},
    "mouthRollUpper": {"rollUpper": 1.0},
    "mouthShrugLower": {"shrugLower": 1.0},
    "mouthShrugUpper": {"shrugUpper": 1.0},
    "mouthPress": {"press": 1.0},
    "mouthLowerDown": {"lowerDown": 1.0},
    "mouthUpperUp": {"upperUp": 1.0},
    "browDown": {"browDown": 1.0},
    "browInnerUp": {"browInnerUpLeft": 1.0, "browInnerUpRight": 1.0},
    "browOuterUp": {"browOuterUp": 1.0},
    "cheekPuff": {"cheekPuffLeft": 1.0, "cheekPuffRight": 1.0},
    "cheekSquint": {"cheekSquint": 1.0},
    "noseSneer": {"noseSneer": 1.0, "nostrilFlare": 0.3},
    "tongueOut": {"tongueOut": 1.0},
}


def arkit_map(codes: dict[str, NDArray[np.float64]]) -> ExpressionMap:
    """Build the map from the codes of the named fields (name -> [100]).

    Gaze turns the eyes (x axis: down positive; y axis: to the subject's left positive); the lids follow through the
    pose correctives. ``jawOpen`` is 0.30 rad of jaw; blinks are the eyelid parameters.
    """
    matrix = np.zeros((len(ARKIT_NAMES), 111))
    for row, name in zip(matrix, ARKIT_NAMES, strict=True):
        side = "Left" if name.endswith("Left") else "Right" if name.endswith("Right") else ""
        stem = name.removesuffix(side)
        right = side == "Right"
        if stem == "eyeBlink":
            row[_EYELIDS + right] = 1.0
        elif stem.startswith("eyeLook"):
            pitch = {"Down": 1.0, "Up": -1.0}.get(stem[7:], 0.0)
            yaw = {"In": -1.0, "Out": 1.0}.get(stem[7:], 0.0) * (-1.0 if right else 1.0)
            row[_EYES + 3 * right : _EYES + 3 * right + 2] = _GAZE * pitch, _GAZE * yaw
        elif name == "jawOpen":
            row[_JAW] = JAW_OPEN
        elif name in _FIELDS:
            row[:100] = sum(weight * codes[field] for field, weight in _FIELDS[name].items())
        else:
            row[:100] = sum(weight * codes[field + side] for field, weight in _FIELDS[stem].items())
    return ExpressionMap(ARKIT_NAMES, matrix.astype(np.float32))
