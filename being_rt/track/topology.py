"""Which landmark is which: the numbering of MediaPipe's face mesh, 0..467, and of the irises after it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]

MESH_COUNT, IRIS_COUNT = 468, 5
LANDMARKS = MESH_COUNT + 2 * IRIS_COUNT


def _numbers(text: str) -> Int32:
    return np.array(text.split(), np.int32)


# Left and right are those of the picture. The eye on its left is the subject's right one.
OUTER_CORNERS = (33, 263)  # of the eyes
EYE_CORNERS = ((33, 133), (362, 263))  # of each eye, from left to right
MOUTH_CORNERS = (61, 291)

# What the networks of the eyes see, in their order: 16 points of the lids (the lower from the outer corner to the
# inner, then the upper without the corners), then rings around the eye, outwards, up to the brow.
EYE_CONTOURS = (
    _numbers(
        "33 7 163 144 145 153 154 155 133 246 161 160 159 158 157 173 "
        "130 25 110 24 23 22 26 112 243 247 30 29 27 28 56 190 "
        "226 31 228 229 230 231 232 233 244 113 225 224 223 222 221 189 "
        "35 124 46 53 52 65 143 111 117 118 119 120 121 128 245 156 70 63 105 66 107 55 193"
    ),
    _numbers(
        "263 249 390 373 374 380 381 382 362 466 388 387 386 385 384 398 "
        "359 255 339 254 253 252 256 341 463 467 260 259 257 258 286 414 "
        "446 261 448 449 450 451 452 453 464 342 445 444 443 442 441 413 "
        "265 353 276 283 282 295 372 340 346 347 348 349 350 357 465 383 300 293 334 296 336 285 417"
    ),
)
LID_COUNT = 16
LIDS = (EYE_CONTOURS[0][:LID_COUNT], EYE_CONTOURS[1][:LID_COUNT])

# What the network of the mouth sees, in its order: the outer edge of the lips, the inner edge, and two lines between.
# Each begins with the lower lip from the left corner to the right (11 points), then the upper without the corners (9).
LIPS = _numbers(
    "61 146 91 181 84 17 314 405 321 375 291 185 40 39 37 0 267 269 270 409 "
    "78 95 88 178 87 14 317 402 318 324 308 191 80 81 82 13 312 311 310 415 "
    "76 77 90 180 85 16 315 404 320 307 306 184 74 73 72 11 302 303 304 408 "
    "62 96 89 179 86 15 316 403 319 325 292 183 42 41 38 12 268 271 272 407"
)

# The outline of the face, from the middle of the forehead clockwise. It slides along the surface as the head turns.
OVAL = _numbers(
    "10 338 297 332 284 251 389 356 454 323 361 288 397 365 379 378 400 377 "
    "152 148 176 149 150 136 172 58 132 93 234 127 162 21 54 103 67 109"
)

MIDLINE = _numbers("0 1 2 4 5 6 8 9 10 11 12 13 14 15 16 17 18 19 94 151 152 164 168 175 195 197 199 200")
IRISES = (np.arange(468, 473, dtype=np.int32), np.arange(473, 478, dtype=np.int32))  # middle, then four of its edge


def _mirror() -> Int32:
    mirror = np.arange(LANDMARKS, dtype=np.int32)
    right = np.arange(248, MESH_COUNT, dtype=np.int32)  # numbered in the order of their counterparts
    left = np.setdiff1d(np.arange(248, dtype=np.int32), MIDLINE)
    mirror[left], mirror[right] = right, left
    around = np.array([0, 3, 2, 1, 4])  # an iris: its middle, right, top, left and bottom
    mirror[IRISES[0]], mirror[IRISES[1]] = IRISES[1][around], IRISES[0][around]
    return mirror


MIRROR: Int32 = _mirror()
"""[478]: the number of a landmark in the mirrored picture."""
