"""Whether a camera moves: known motions of a textured wall behind a person who covers half of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from being_rt.errors import InvalidParameterError
from being_rt.track.camera_motion import CameraMotion, _Found, _judged, camera_motion

ndimage = pytest.importorskip("scipy.ndimage")

SIZE = (640, 360)
BORDER = 80


def wall(seed: int = 0) -> np.ndarray:
    """Texture without steps between pixels, larger than a frame: float64 [H + 2 BORDER, W + 2 BORDER, 3]."""
    random = np.random.default_rng(seed)
    shape = (SIZE[1] + 2 * BORDER, SIZE[0] + 2 * BORDER)
    grain = sum(
        strength * ndimage.gaussian_filter(random.normal(0, 1, shape), width) * width
        for width, strength in ((1.5, 25), (6, 40), (30, 90))
    )
    return (140 + np.asarray(grain))[..., None] + np.array([8.0, 0.0, -8.0])


def view(scene: np.ndarray, shift: tuple[float, float] = (0, 0), zoom: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """What a camera sees: the wall moved by ``shift`` pixels right and down, turned and enlarged about the middle."""
    cosine, sine = np.cos(turn) / zoom, np.sin(turn) / zoom
    inverse = np.array([[cosine, -sine], [sine, cosine]])  # rows, columns
    middle = (np.array([SIZE[1], SIZE[0]]) - 1) / 2
    offset = BORDER + middle - inverse @ (middle + np.array(shift)[::-1])
    channels = [
        ndimage.affine_transform(scene[..., c], inverse, offset, (SIZE[1], SIZE[0]), order=3, mode="nearest")
        for c in range(3)
    ]
    return np.stack(channels, -1)


def person(sway: float) -> np.ndarray:
    """A mask that covers half of the picture."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    return np.abs(x - SIZE[0] / 2 - sway) < 0.22 * SIZE[0] + 0.12 * y


def film(pictures: Sequence[np.ndarray], light: Sequence[float] | None = None) -> CameraMotion:
    """Motion of pictures with a person before them who sways, of another pattern in every frame."""
    random = np.random.default_rng(1)
    frames, masks = [], []
    for t, picture in enumerate(pictures):
        mask = person(12 * np.sin(t))
        assert 0.4 < mask.mean() < 0.6
        clothes = ndimage.gaussian_filter(random.normal(110, 300, (SIZE[1], SIZE[0])), 3)[..., None]
        frame = np.where(mask[..., None], clothes, picture) * (light[t] if light is not None else 1)
        frame = frame + random.normal(0, 2.5, (SIZE[1], SIZE[0], 3))
        frames.append(frame.clip(0, 255).round().astype(np.uint8))
        masks.append(np.where(mask[::4, ::4], 255, 0).astype(np.uint8))
    return camera_motion(frames, masks)


def test_a_camera_on_a_tripod() -> None:
    still = view(wall())
    motion = film([still] * 5)
    assert motion.verdict == "static"
    assert motion.is_static
    assert "stands still" in motion.words
    assert motion.shifts.shape == (5, 2)
    assert np.abs(motion.shifts).max() < 0.1
    assert motion.shares.min() > 0.9


def test_light_that_changes_is_no_motion() -> None:
    still = view(wall())
    shadow = still.copy()
    shadow[:, :150] *= 0.6
    motion = film([still, still, still, shadow], light=[1.0, 0.6, 1.25, 1.0])
    assert motion.verdict == "static"
    assert np.abs(motion.shifts).max() < 0.25


def test_something_that_moves_in_the_background_is_not_the_camera() -> None:
    scene = wall()
    pictures = [view(scene) for _ in range(5)]
    screen = view(wall(7))
    for t, picture in enumerate(pictures):
        picture[60:200, 10:110] = np.roll(screen, 9 * t, axis=1)[60:200, 10:110]  # a fifth of what is to be seen
    motion = film(pictures)
    assert motion.verdict == "static"
    assert np.abs(motion.shifts).max() < 0.1


def test_a_hand_that_shakes() -> None:
    moves = [(0.0, 0.0), (1.3, -0.4), (3.2, 2.7), (-2.6, 1.1), (0.4, -3.9), (2.25, 0.5)]
    motion = film([view(wall(), move) for move in moves])
    assert motion.verdict == "shaky"
    assert not motion.is_static
    assert np.abs(motion.shifts - moves).max() < 0.15
    assert np.allclose(motion.distances, np.linalg.norm(moves, axis=1), atol=0.15)
    assert "shakes" in motion.words
    assert "tripod" in motion.words


def test_turns_and_zooms_count() -> None:
    scene = wall()
    motion = film([view(scene), view(scene, turn=0.02), view(scene, zoom=1.02)])
    # The patches lie left and right of the person, some 230 pixels from the middle.
    assert np.abs(motion.distances[1:] - 0.02 * 230).max() < 1.0
    assert motion.verdict == "shaky"


def test_a_pan_and_a_jump() -> None:
    pan = [(6.0 * t, 1.5 * t) for t in range(6)]
    jumps = [(0.0, 0.0), (62.0, -30.0), (0.0, 0.0), (-55.0, 20.0)]
    for moves in (pan, jumps):
        motion = film([view(wall(), move) for move in moves])
        assert motion.verdict == "moving"
        assert np.abs(motion.shifts - moves).max() < 0.15
        assert "the camera moves" in motion.words


@pytest.mark.parametrize(
    ("distances", "verdict"),
    [
        ([0.2 * t for t in range(7)], "shaky"),
        ([2.0 * t for t in range(7)], "moving"),
        ([0.1] * 7, "unknown"),
        ([0, 9], "unknown"),
    ],
)
def test_what_came_before_the_background_was_out_of_sight_counts(distances: list[float], verdict: str) -> None:
    nothing = _Found((np.nan, np.nan), np.nan, 0.0, lost=False)
    found = [nothing._replace(distance=distance, share=1.0) for distance in distances]
    assert _judged(found + [nothing] * 29, 350)[0] == verdict


def test_a_cut_is_not_taken_for_a_small_motion() -> None:
    motion = film([view(wall()), view(wall()), view(wall(5)), view(wall(6))])
    assert motion.verdict == "moving"
    assert np.isnan(motion.shifts[2:]).all()
    assert np.isnan(motion.distances[2:]).all()
    assert "2 of 4 frames" in motion.words


@pytest.mark.parametrize("kind", ["plain", "stripes"])
def test_where_nothing_tells_it_is_said(kind: str) -> None:
    """A plain wall; shelves, along which a camera may move unseen."""
    plain = np.full((SIZE[1], SIZE[0], 3), 150.0)
    if kind == "stripes":
        plain += 40 * np.sin(np.arange(SIZE[1]) / 9)[:, None, None]
    motion = film([plain] * 3)
    assert motion.verdict == "unknown"
    assert motion.is_static  # nothing speaks against it
    assert "cannot be told" in motion.words
    assert np.isnan(motion.shifts).all()


def test_somebody_before_all_of_it() -> None:
    frame = view(wall()).clip(0, 255).astype(np.uint8)
    motion = camera_motion([frame] * 3, [np.full((64, 64), 255, np.uint8)] * 3)
    assert motion.verdict == "unknown"


def test_what_is_refused() -> None:
    frame, mask = np.zeros((60, 80, 3), np.uint8), np.zeros((16, 16), np.uint8)
    with pytest.raises(InvalidParameterError, match="at least one frame"):
        camera_motion([], [])
    with pytest.raises(InvalidParameterError, match="frames must be of one size, got 80x60 and 80x50"):
        camera_motion([frame, frame[:50]], [mask, mask])
    with pytest.raises(InvalidParameterError, match=r"a frame must be uint8 \[H, W, 3\]"):
        camera_motion([frame.astype(np.float32)], [mask])
    with pytest.raises(ValueError, match="shorter"):
        camera_motion([frame, frame], [mask])
