"""The face mesh's landmarks by name, and how much the fitter trusts each.

Numbers are those of MediaPipe's face mesh, 0..467, with irises 468..477. "Left" and "right" are the subject's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]
Float64 = NDArray[np.float64]

LANDMARKS = 478

# Lids, from the outer corner to the inner, without the corners; element k of both lids meets when the eye closes.
RIGHT_UPPER_LID = (246, 161, 160, 159, 158, 157, 173)
RIGHT_LOWER_LID = (7, 163, 144, 145, 153, 154, 155)
LEFT_UPPER_LID = (466, 388, 387, 386, 385, 384, 398)
LEFT_LOWER_LID = (249, 390, 373, 374, 380, 381, 382)
RIGHT_CORNERS, LEFT_CORNERS = (33, 133), (263, 362)  # outer, inner

RIGHT_IRIS, LEFT_IRIS = tuple(range(468, 473)), tuple(range(473, 478))

# Lips, from the right corner to the left, without the corners; element k of both inner edges meets in a closed mouth.
INNER_UPPER_LIP = (191, 80, 81, 82, 13, 312, 311, 310, 415)
INNER_LOWER_LIP = (95, 88, 178, 87, 14, 317, 402, 318, 324)
OUTER_UPPER_LIP = (185, 40, 39, 37, 0, 267, 269, 270, 409)
OUTER_LOWER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375)
INNER_CORNERS, OUTER_CORNERS = (78, 308), (61, 291)
# Two rings between the outer edge and the inner.
UPPER_LIP_SURFACE = (184, 74, 73, 72, 11, 302, 303, 304, 408, 183, 42, 41, 38, 12, 268, 271, 272, 407)
LOWER_LIP_SURFACE = (77, 90, 180, 85, 16, 315, 404, 320, 307, 96, 89, 179, 86, 15, 316, 403, 319, 325)
SURFACE_CORNERS = (76, 306, 62, 292)
RIGHT_BROW = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
LEFT_BROW = (276, 283, 282, 295, 285, 300, 293, 334, 296, 336)
NOSE = (
    *(168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327),
    *(122, 196, 3, 51, 45, 44, 115, 220, 48, 64, 240, 131, 134, 75, 59, 235),
    *(351, 419, 248, 281, 275, 274, 344, 440, 278, 294, 460, 360, 363, 305, 289, 455),
)
# The face's outline, clockwise in the picture from the middle of the forehead.
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)

EYE_DISTANCE = ((33, 133), (362, 263))  # the middle of each eye lies between its corners


@dataclass(frozen=True)
class LandmarkSet:
    """Landmarks that are trusted alike."""

    name: str
    ids: tuple[int, ...]
    weight: float  # inverse variance, in that of a brow's or the nose's landmark
    contour: bool = False  # lies on the face's outline, along which it slides when the head turns


SETS = (
    LandmarkSet("right lids", (*RIGHT_CORNERS, *RIGHT_UPPER_LID, *RIGHT_LOWER_LID), 4.0),
    LandmarkSet("left lids", (*LEFT_CORNERS, *LEFT_UPPER_LID, *LEFT_LOWER_LID), 4.0),
    LandmarkSet("inner lips", (*INNER_CORNERS, *INNER_UPPER_LIP, *INNER_LOWER_LIP), 4.0),
    LandmarkSet("outer lips", (*OUTER_CORNERS, *OUTER_UPPER_LIP, *OUTER_LOWER_LIP), 2.0),
    LandmarkSet("lip surface", (*SURFACE_CORNERS, *UPPER_LIP_SURFACE, *LOWER_LIP_SURFACE), 1.0),
    LandmarkSet("right iris", RIGHT_IRIS, 3.0),
    LandmarkSet("left iris", LEFT_IRIS, 3.0),
    LandmarkSet("right brow", RIGHT_BROW, 1.0),
    LandmarkSet("left brow", LEFT_BROW, 1.0),
    LandmarkSet("nose", NOSE, 1.0),
    LandmarkSet("oval", OVAL, 0.2, contour=True),
)
SKIN = LandmarkSet(  # cheeks, forehead, chin: smooth, and so least certain along the surface
    "skin", tuple(sorted(set(range(LANDMARKS)) - {i for group in SETS for i in group.ids})), 0.5
)
ALL_SETS = (*SETS, SKIN)

# Upper and lower landmarks whose difference tells how far a slit is open.
LID_PAIRS = (
    *zip(RIGHT_UPPER_LID, RIGHT_LOWER_LID, strict=True),
    *zip(LEFT_UPPER_LID, LEFT_LOWER_LID, strict=True),
)
LIP_PAIRS = tuple(zip(INNER_UPPER_LIP, INNER_LOWER_LIP, strict=True))


def rows_of_pairs(ids: Int32) -> Int32:
    """Pairs [G, 2] of lids and lips, upper and lower, as rows of ``ids``; those that are not all there are left out."""
    row = np.full(LANDMARKS, -1)
    row[ids] = np.arange(len(ids))
    pairs = row[np.array((*LID_PAIRS, *LIP_PAIRS))]
    return pairs[(pairs >= 0).all(1)].astype(np.int32)


def chosen_landmarks(points: Float64, found: NDArray[np.bool_], skin: int) -> Int32:
    """The landmarks that are fitted to, ascending: every named one that is on the mesh, and some of the skin's.

    What neighbours on the cheeks say is nearly the same, so of them the ``skin`` farthest apart are enough: each next
    one is the farthest from those before (farthest point sampling; Gonzalez, Theoretical Computer Science 38, 1985).

    Args:
        points: [478, 3] where the landmarks lie on the template. found: [478] which of them do.
    """
    named = [i for group in SETS for i in group.ids if found[i]]
    candidates = np.array([i for i in SKIN.ids if found[i]], np.int64)
    taken: list[int] = []
    if candidates.size:
        start = points[named] if named else points[candidates[:1]]
        nearest = np.linalg.norm(points[candidates][:, None] - start[None], axis=-1).min(1)
        for _ in range(min(skin, candidates.size)):
            farthest = int(nearest.argmax())
            taken.append(int(candidates[farthest]))
            away = np.linalg.norm(points[candidates] - points[candidates[farthest]], axis=-1)
            nearest = np.minimum(nearest, away)
            nearest[farthest] = -1
    return np.array(sorted({*named, *taken}), np.int32)


def rigid_landmarks(points: Float64, ids: Int32) -> NDArray[np.bool_]:
    """Which of landmarks ``ids`` [L] at ``points`` [L, 3] of the template hardly move against the skull.

    The eyes' corners, the nose, and of outline and skin what lies above the nose's wings; brows and lids move.
    """
    nose = np.isin(ids, NOSE)
    above = points[:, 1] > (points[nose, 1].min() if nose.any() else -np.inf)
    upper = np.isin(ids, (*OVAL, *SKIN.ids)) & above
    return np.asarray(nose | upper | np.isin(ids, (*RIGHT_CORNERS, *LEFT_CORNERS)))
