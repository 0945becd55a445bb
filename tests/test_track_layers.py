"""What lies before and behind what in a video, on pictures whose truth is known: rendered people before textures."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from being_rt import FlameParams, Renderer, demo_avatar
from being_rt.errors import InvalidParameterError
from being_rt.track.alpha import AlphaRefiner, refine_alpha, refine_alphas
from being_rt.track.plate import Plate, background_plate, bare_pixels

ndimage = pytest.importorskip("scipy.ndimage")

SIZE = (961, 540)  # the last cell of two pixels is not full
NOISE = 2.5  # grey levels


def room(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A wall with large and small structure, a shelf and an upright: float32 [H, W, 3] 0..255."""
    random = np.random.default_rng(seed)
    width, height = size
    wall = np.full((height, width, 3), [150, 146, 138], np.float32)
    for cells, strength in ((6, 30), (24, 18), (90, 10)):
        grain = random.uniform(-1, 1, (cells, cells)).astype(np.float32)
        wall += strength * np.asarray(Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC))[..., None]
        tint = random.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            layer = Image.fromarray(tint[..., channel]).resize(size, Image.Resampling.BICUBIC)
            wall[..., channel] += 0.3 * strength * np.asarray(layer)
    wall[int(0.30 * height) : int(0.34 * height)] -= 60
    wall[:, int(0.10 * width) : int(0.13 * width)] -= 50
    return wall.clip(10, 245)


@cache
def people(count: int = 1, size: tuple[int, int] = SIZE, reach: float = 0.0) -> np.ndarray:
    """A person who turns, talks and moves sideways by up to ``reach`` metres: RGBA uint8 [count, H, W, 4]."""
    time = np.linspace(0, 2 * np.pi, count, endpoint=False)
    still = np.zeros_like(time)
    motion = FlameParams.neutral(count).replace(
        rotation=np.stack([still, 0.2 * np.sin(time) * (reach > 0), still], 1),
        translation=np.stack([reach * np.sin(time), still, still], 1),
        jaw=np.stack([0.1 + 0.05 * np.sin(3 * time), still, still], 1),
    )
    renderer = Renderer(demo_avatar("ada"), size, threads=1)
    return np.stack([renderer.render(motion[t], format="rgba") for t in range(count)])


def filmed(person: np.ndarray, behind: np.ndarray, seed: int = 0, gain: float = 1.0) -> np.ndarray:
    """A noisy frame of a person RGBA before a background: uint8 [H, W, 3]."""
    alpha = person[..., 3:].astype(np.float32) / 255
    clean = gain * (person[..., :3] * alpha + behind * (1 - alpha))
    noise = np.random.default_rng(seed).normal(0, NOISE, clean.shape)
    return (clean + noise).clip(0, 255).round().astype(np.uint8)


def coarse(
    alpha: np.ndarray, seed: int = 0, cut: int = 0, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """What a network of 256 x 256 makes of an alpha: its edge wanders, ``cut`` of its pixels are missing at the edge.

    ``box``: left, top, right, bottom in parts of the picture, of furniture that it takes for the person.
    """
    random = np.random.default_rng(seed)
    small = Image.fromarray(alpha).resize((256, 256), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(1.2))
    if cut:
        small = small.filter(ImageFilter.MinFilter(2 * cut + 1))
    wander = Image.fromarray(random.normal(0, 0.1, (48, 48)).astype(np.float32))
    edge = np.asarray(small) / 255 - 0.5 + np.asarray(wander.resize((256, 256), Image.Resampling.BICUBIC))
    mask = 1 / (1 + np.exp(-14 * edge))
    if box is not None:
        left, top, right, bottom = (round(256 * side) for side in box)
        mask[top:bottom, left:right] = 0.95
    return (255 * mask).astype(np.uint8)


def enlarged(mask: np.ndarray, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR))


def around_edge(alpha: np.ndarray, reach: int = 15) -> np.ndarray:
    """Pixels within ``reach`` of the edge of an alpha."""
    picture = Image.fromarray(alpha)
    low, high = (
        np.asarray(picture.filter(kind(2 * reach + 1))) for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter)
    )
    return (low < 230) & (high > 25)


def error(found: np.ndarray, alpha: np.ndarray, where: np.ndarray) -> float:
    """Mean difference of alphas, 0..1."""
    return float(np.abs(found.astype(np.float32) - alpha)[where].mean() / 255)


def whole(picture: np.ndarray) -> Plate:
    """A plate that is known everywhere."""
    return Plate(picture.round().astype(np.uint8), np.ones(picture.shape[:2], bool))


# ---------------------------------------------------------------------------------------------------------- alpha


def test_alpha_finds_the_edge_and_the_hair() -> None:
    person = people()[0]
    alpha, behind = person[..., 3], room(SIZE)
    frame, mask = filmed(person, behind), coarse(person[..., 3])
    edge = around_edge(alpha)
    found = refine_alpha(frame, mask)
    assert found.shape == alpha.shape
    assert found.dtype == np.uint8
    before = error(enlarged(mask), alpha, edge)
    assert before > 0.03
    assert error(found, alpha, edge) < 0.5 * before
    far = ~around_edge(alpha, 31)
    assert error(found, alpha, far) < 0.002
    assert error(refine_alpha(frame, mask, whole(behind)), alpha, edge) < 0.5 * before


def test_a_known_background_removes_furniture_and_adds_hair() -> None:
    person = people()[0]
    alpha, behind = person[..., 3], room(SIZE)
    mask = coarse(alpha, cut=3, box=(0.7, 0.6, 0.95, 1.0))
    frame = filmed(person, behind, gain=0.9)  # the camera's exposure has changed since
    furniture = np.zeros_like(alpha, bool)
    furniture[330:, 700:910] = True
    furniture &= ~around_edge(alpha, 7) & (alpha == 0)
    edge = around_edge(alpha)
    without, with_plate = refine_alpha(frame, mask), refine_alpha(frame, mask, whole(behind))
    assert error(without, alpha, furniture) > 0.9
    assert error(with_plate, alpha, furniture) < 0.005
    assert error(with_plate, alpha, edge) < 0.25 * error(without, alpha, edge)
    assert error(with_plate, alpha, edge) < 0.045


def test_shadows_are_no_hair() -> None:
    person = people()[0]
    alpha, behind = person[..., 3], room(SIZE)
    shaded = behind.copy()
    shaded[60:400, 560:660] *= 0.82  # beside the head
    found = refine_alpha(filmed(person, shaded), coarse(alpha), whole(behind))
    beside = np.zeros_like(alpha, bool)
    beside[60:400, 560:660] = True
    assert error(found, alpha, beside & (alpha == 0)) < 0.02


def test_an_edge_that_stands_still_does_not_flicker() -> None:
    person = people()[0]
    alpha, behind = person[..., 3], room(SIZE)
    count = 12
    frames = [filmed(person, behind, seed) for seed in range(count)]
    masks = [coarse(alpha, seed) for seed in range(count)]
    edge = around_edge(alpha)

    def flicker(alphas: list[np.ndarray]) -> float:
        late = np.stack(alphas[4:]).astype(np.float32)[:, edge]
        return float(np.sqrt(np.mean(np.diff(late, axis=0) ** 2)))

    network = flicker([enlarged(mask) for mask in masks])
    assert network > 15  # of 255
    alone = flicker([refine_alpha(frame, mask) for frame, mask in zip(frames, masks, strict=True)])
    assert flicker(list(refine_alphas(frames, masks))) < 0.7 * alone
    assert flicker(list(refine_alphas(frames, masks))) < 0.3 * network
    assert flicker(list(refine_alphas(frames, masks, whole(behind)))) < 0.3 * network


def test_alpha_does_not_lag_behind_a_person_who_moves() -> None:
    size = (480, 270)
    moving, behind = people(8, size, 0.08), room(size)
    frames = [filmed(person, behind, seed) for seed, person in enumerate(moving)]
    masks = [coarse(person[..., 3], seed) for seed, person in enumerate(moving)]
    together = list(refine_alphas(frames, masks))
    for t, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        alpha = moving[t, ..., 3]
        edge = around_edge(alpha, 8)
        assert error(together[t], alpha, edge) < 1.1 * error(refine_alpha(frame, mask), alpha, edge) + 0.002


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("known", [None, False, True])
def test_nobody_and_somebody_everywhere(level: int, known: bool | None) -> None:
    frame = filmed(people()[0], room(SIZE))
    plate = None if known is None else Plate(room(SIZE, 3).astype(np.uint8), np.full(SIZE[::-1], known))
    found = refine_alpha(frame, np.full((256, 256), level, np.uint8), plate)
    assert (found == level).all()


@pytest.mark.parametrize("size", [(40, 30), (333, 277), (1202, 803)])
def test_any_size(size: tuple[int, int]) -> None:
    behind = room(size)
    y, x = np.mgrid[: size[1], : size[0]]
    inside = (x / size[0] - 0.5) ** 2 + (y / size[1] - 0.6) ** 2 < 0.08
    frame = np.where(inside[..., None], [40, 60, 120], behind).astype(np.uint8)
    mask = coarse(np.where(inside, 255, 0).astype(np.uint8))
    for plate in (None, whole(behind)):
        found = refine_alpha(frame, mask, plate)
        assert found.shape == size[::-1]
        assert error(found, 255 * inside.astype(np.float32), np.ones_like(inside)) < 0.01


def test_frames_are_the_same_on_any_number_of_threads() -> None:
    person, behind = people()[0], room(SIZE)
    frames = [filmed(person, behind, seed) for seed in range(4)]
    masks = [coarse(person[..., 3], seed) for seed in range(4)]
    one, three = (list(refine_alphas(iter(frames), iter(masks), whole(behind), n)) for n in (1, 3))
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))


def test_what_alpha_refuses() -> None:
    frame, mask = np.zeros((30, 40, 3), np.uint8), np.zeros((8, 8), np.uint8)
    with pytest.raises(InvalidParameterError, match=r"a frame must be uint8 \[H, W, 3\]"):
        refine_alpha(frame[..., 0], mask)
    with pytest.raises(InvalidParameterError, match=r"a mask must be uint8 \[h, w\], got float64 \[8, 8\]"):
        refine_alpha(frame, mask.astype(float))
    with pytest.raises(InvalidParameterError, match="a plate must be of the frames' size 40x30"):
        refine_alpha(frame, mask, Plate(frame[:20], np.ones((20, 40), bool)))
    with pytest.raises(InvalidParameterError, match="frames must be 40x30, got 40x20"):
        AlphaRefiner((40, 30)).reduce(frame[:20], mask)
    with pytest.raises(ValueError, match="shorter"):
        list(refine_alphas([frame, frame], [mask]))


# ---------------------------------------------------------------------------------------------------------- plate


def walk(count: int = 16) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Frames, coarse masks and true alphas of a person who sways before the same wall."""
    for seed, person in enumerate(people(count, (480, 270), 0.12)):
        yield filmed(person, room((480, 270)), seed), coarse(person[..., 3], seed), person[..., 3]


def test_a_plate_is_the_room_where_somebody_saw_it() -> None:
    frames, masks, alphas = zip(*walk(), strict=True)
    truth = room((480, 270))
    plate = background_plate(frames, masks)
    never = np.stack(alphas).min(0) > 0
    always_far = np.stack([bare_pixels(mask, (480, 270)) for mask in masks]).any(0)
    assert not plate.known[never].any()
    assert plate.known[always_far].mean() > 0.95
    assert np.abs(plate.picture - truth)[plate.known].mean() < 1.5  # the noise is 2 on average, of single frames
    assert np.quantile(np.abs(plate.picture - truth)[plate.known], 0.999) < 8
    hole = plate.picture[~plate.known].astype(np.float64)
    assert np.abs(hole - truth[~plate.known]).mean() < 30  # smooth, of the colours around
    again = background_plate(iter(frames), iter(masks))
    assert np.array_equal(again.picture, plate.picture)


def test_a_picture_of_the_empty_room_makes_all_of_it_known() -> None:
    frames, masks, _ = zip(*walk(6), strict=True)
    truth = room((480, 270))
    darker = (0.8 * truth).astype(np.uint8)
    plate = background_plate(frames, masks, empty=darker)
    assert plate.known.all()
    assert np.abs(plate.picture - truth).mean() < 2
    with pytest.raises(InvalidParameterError, match="the picture of the empty scene does not fit the video"):
        background_plate(frames, masks, empty=room((480, 270), 5).astype(np.uint8)[:, ::-1])
    with pytest.raises(InvalidParameterError, match=r"the empty scene must be uint8 \[270, 480, 3\]"):
        background_plate(frames, masks, empty=darker[:100])


def test_what_a_plate_refuses() -> None:
    frame, mask = np.zeros((30, 40, 3), np.uint8), np.full((8, 8), 255, np.uint8)
    with pytest.raises(InvalidParameterError, match="at least one frame"):
        background_plate([], [])
    with pytest.raises(InvalidParameterError, match=r"a frame must be uint8 \[H, W, 3\]"):
        background_plate([frame.astype(float)], [mask])
    assert not background_plate([frame], [mask]).known.any()
    assert background_plate([frame], [~mask]).known.all()  # one frame is enough where there is one


def test_around_a_person_nothing_is_bare() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[100:150, 100:150] = 255
    bare = bare_pixels(mask, (1920, 1080), around=0.02)
    assert bare.shape == (1080, 1920)
    rows, columns = np.flatnonzero(~bare.all(1)), np.flatnonzero(~bare.all(0))
    scale = np.array([1920, 1080]) / 256
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    assert np.abs([left - 100 * scale[0] + 38, right - 150 * scale[0] - 38]).max() < 12
    assert np.abs([top - 100 * scale[1] + 38, bottom - 150 * scale[1] - 38]).max() < 12


# ------------------------------------------------------------------------------------------------------- real video


def test_a_real_person(networks: None, real_video: Path) -> None:
    """The room is seen left and right of a person who hardly moves; his grey hair is not unlike it."""
    pytest.importorskip("av")
    from being_rt.track.camera_motion import camera_motion
    from being_rt.track.segmentation import PersonSegmentation
    from being_rt.track.source import VideoSource

    frames = [picture for _, picture in VideoSource(real_video).sample(9)]
    segmentation = PersonSegmentation((834, 884))
    masks = [segmentation(frame) for frame in frames]
    assert camera_motion(frames, masks).verdict == "static"
    plate = background_plate(frames, masks)
    assert 0.3 < plate.known.mean() < 0.55
    assert plate.picture[500:, 300:500].std(axis=(0, 1)).max() < 12  # smooth behind him
    for frame, mask in zip(frames, masks, strict=True):
        alpha = refine_alpha(frame, mask, plate)
        assert (alpha[300:600, 250:430] == 255).all()  # the face
        assert (alpha[:400, -100:] == 0).all()
        assert (alpha[:400, :40] == 0).all()
        assert ((alpha > 12) & (alpha < 243)).mean() < 0.03
        assert np.abs(alpha.astype(float) - enlarged(mask, (834, 884))).mean() < 4
