"""What steps see: every frame in turn, crops and cameras that agree, the same from any step on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from train_scenes import head_rig, make_camera, make_dataset

from being_rt.dataset import Dataset, DatasetWriter
from being_rt.dataset.regions import project
from being_rt.errors import DatasetError, InvalidParameterError
from being_rt.flame.params import FlameParams
from being_rt.train import feed as feed_module
from being_rt.train.config import FeedConfig
from being_rt.train.feed import Feed, camera_intrinsics, mask_box, pack, reduced
from being_rt.train.sampling import View, evenly, make_views

FOVEATED = FeedConfig(crops="foveated", window=(24, 16), whole_until=0.25)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("feed") / "data", count=9, size=(64, 48), background=True)


def make_feed(dataset: Dataset, config: FeedConfig = FOVEATED, batch: int = 2, rank: int = 0, ranks: int = 1) -> Feed:
    return Feed(dataset, config, "cpu", seed=3, batch=batch, rank=rank, ranks=ranks)


def look(feed: Feed, step: int, view: View, following: Sequence[tuple[int, View]] = ()) -> tuple[Tensor, Tensor]:
    """A step's frames and rows."""
    row = torch.tensor(feed.sampler.rows(step, view), device=feed.device)
    feed.fetch(step, view, following)
    return feed.target(row, view), row


def test_views_of_frames() -> None:
    assert make_views(FeedConfig(), (512, 512)) == (View((512, 512), 1, False),)
    whole, window = make_views(FeedConfig(), (1920, 1080))
    assert (whole, window) == (View((960, 540), 2, False), View((512, 512), 1, True))
    assert make_views(FeedConfig(crops="foveated", window=(100, 50)), (80, 80))[1].size == (80, 50)
    with pytest.raises(InvalidParameterError, match="too small"):
        make_views(FeedConfig(crops="foveated"), (24, 24))


def test_every_frame_is_seen_before_any_is_seen_again(dataset: Dataset) -> None:
    sampler = make_feed(dataset, batch=3).sampler
    count = len(dataset.split("train"))
    seen = np.concatenate([sampler.frames(step) for step in range(count)])  # three times all of them
    epochs = seen.reshape(3, count)
    for epoch in epochs:
        assert sorted(epoch) == list(range(count))
    assert not (epochs[0] == epochs[1]).all()


def test_a_step_is_the_same_wherever_the_run_begins(dataset: Dataset) -> None:
    first, second = make_feed(dataset), make_feed(dataset)
    window = first.views[1]
    for step in range(12):
        seen = look(first, step, window)
    for mine, other in zip(seen, look(second, 11, window), strict=True):
        assert torch.equal(mine, other)


def test_ranks_share_a_batch(dataset: Dataset) -> None:
    whole = make_feed(dataset, batch=4).sampler
    parts = [make_feed(dataset, batch=4, rank=rank, ranks=2).sampler for rank in range(2)]
    view = whole.views[1]
    joined = np.concatenate([part.rows(5, view) for part in parts])
    np.testing.assert_array_equal(joined, whole.rows(5, view))
    with pytest.raises(InvalidParameterError, match=r"schedule\.batch must be a multiple of 2"):
        make_feed(dataset, batch=3, ranks=2)


def test_views_mix_in_their_share(dataset: Dataset) -> None:
    sampler = make_feed(dataset).sampler
    assert all(not sampler.view(step, 0.1).windowed for step in range(20))
    later = [sampler.view(step, 0.5).windowed for step in range(400)]
    assert np.mean(later) == 0.75


def test_crops_show_what_their_rows_say(dataset: Dataset) -> None:
    feed = make_feed(dataset, batch=8)
    for view in feed.views:
        target, row = look(feed, 4, view)
        pictures = target.view(torch.uint8).unflatten(-1, (-1, 4)).numpy()
        for item, values in zip(pictures, row.numpy(), strict=True):
            index = int(feed.frames[int(values[0])])
            assert values[1] == dataset.timestep[index]
            full = reduced(dataset.image(index), dataset.mask(index), view.reduction)
            left, top = values[3:5].astype(int)
            cut = np.s_[top : top + view.size[1], left : left + view.size[0]]
            np.testing.assert_array_equal(item[..., :3], full[0][cut])
            np.testing.assert_array_equal(item[..., 3], full[1][cut])


def test_a_crops_camera_sees_points_where_the_frame_does(dataset: Dataset) -> None:
    """A point of the face, projected by a crop's camera, lies where the frame has it, moved and reduced."""
    feed = make_feed(dataset, batch=6)
    point = np.array([[0.01, 0.02, 0.05]])
    expected, _ = project(point, dataset.cameras[0])
    for view in feed.views:
        row = look(feed, 2, view)[1]
        pose, intrinsics = feed.cameras(row, view)
        seen = pose[:, :, :3].double().numpy() @ point[0] + pose[:, :, 3].double().numpy()
        k = intrinsics.double().numpy()
        pixel = k[:, :2] * seen[:, :2] / seen[:, 2:] + k[:, 2:4]
        np.testing.assert_allclose((pixel + row[:, 3:5].numpy()) * view.reduction, expected.repeat(6, 0), atol=1e-3)
        np.testing.assert_allclose(k[:, 4:], camera_intrinsics(dataset.cameras[0])[4:][None].repeat(6, 0), rtol=1e-6)


def test_windows_lie_within_the_frame_and_look_at_the_face(dataset: Dataset) -> None:
    sampler = make_feed(dataset, batch=8).sampler
    window = sampler.views[1]
    rows = np.concatenate([sampler.rows(step, window) for step in range(50)])
    corner = rows[:, 3:5]
    assert (corner >= 0).all()
    assert (corner + window.size <= sampler.size).all()
    assert len(np.unique(corner, axis=0)) > 50
    mouth = rows[:, 9:13]
    visible = (mouth[:, 0] < window.size[0]) & (mouth[:, 2] > 0) & (mouth[:, 1] < window.size[1]) & (mouth[:, 3] > 0)
    assert visible.mean() > 0.6


def test_backgrounds(dataset: Dataset, tmp_path: Path) -> None:
    random = make_feed(dataset)
    view = random.views[0]
    row = look(random, 0, view)[1]
    assert torch.equal(random.background(row, view)[:, 0, 0], row[:, 5:8])
    assert len(torch.unique(row[:, 5:8])) == 6

    scene = make_feed(dataset, FeedConfig(crops="foveated", window=(24, 16), random_background=False))
    plate = dataset.backgrounds[0]
    assert plate is not None
    window = scene.views[1]
    row = look(scene, 1, window)[1]
    for item, (left, top) in zip(scene.background(row, window), row[:, 3:5].int().tolist(), strict=True):
        np.testing.assert_allclose(item.numpy() * 255, plate[top : top + 16, left : left + 24], atol=1e-4)
    assert scene.background(row, scene.views[0]).shape == (1, 24, 32, 3)

    plain = make_feed(make_dataset(tmp_path / "plain", 3, test=0), FeedConfig(random_background=False))
    assert torch.equal(plain.background(look(plain, 0, plain.views[0])[1], plain.views[0]), torch.ones(1, 1, 1, 3))


def test_a_reduced_frame_over_a_colour_is_that_reduced() -> None:
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (9, 7, 3), np.uint8)
    mask = (random.integers(0, 2, (9, 7)) * 255).astype(np.uint8)
    mask[:4, :4] = 0
    colour, alpha = reduced(picture, mask, 2)
    assert colour.shape == (4, 3, 3)
    over = mask[..., None] / 255 * picture + (1 - mask[..., None] / 255) * 90.0
    expected = over[:8, :6].reshape(4, 2, 3, 2, 3).mean((1, 3))
    mine = alpha[..., None] / 255 * colour + (1 - alpha[..., None] / 255) * 90.0
    np.testing.assert_allclose(mine, expected, atol=1.2)


def test_words_are_rgba() -> None:
    word = pack(np.array([[[1, 2, 3]]], np.uint8), np.array([[4]], np.uint8))
    assert word.shape == (1, 1)
    assert word.view(np.uint8).tolist() == [[1, 2, 3, 4]]


def test_mask_box() -> None:
    mask = np.zeros((10, 12), np.uint8)
    assert np.isnan(mask_box(mask)).all()
    mask[3:5, 2:9] = 255
    assert mask_box(mask).tolist() == [2, 3, 9, 5]


def test_evenly() -> None:
    assert evenly(range(10), 3).tolist() == [0, 4, 9]
    assert evenly(range(3), 0).tolist() == [0, 1, 2]
    assert evenly(range(3), 5).tolist() == [0, 1, 2]


def test_frame_limit(dataset: Dataset) -> None:
    feed = make_feed(dataset, FeedConfig(frame_limit=3))
    assert feed.frames.tolist() == [0, 3, 6]


def test_datasets_that_cannot_be_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match="neither masks nor a background picture of camera 0"):
        make_feed(make_dataset(tmp_path / "bare", 3, test=0, masks=False))
    with pytest.raises(InvalidParameterError, match=r"empty.* has no training frames"):
        make_feed(make_dataset(tmp_path / "empty", 2, test=2))
    picture, row = np.zeros((16, 16, 3), np.uint8), FlameParams.neutral()
    with DatasetWriter(tmp_path / "some", rig=head_rig(), cameras=(make_camera((16, 16)),), fps=25, name="x") as writer:
        writer.add(picture, picture[..., 0], row)
        writer.add(picture, None, row)
    with pytest.raises(DatasetError, match=r"000001\.png has no mask"):
        make_feed(Dataset.load(tmp_path / "some"))
    cameras = make_camera((16, 16)), make_camera((20, 16))
    with DatasetWriter(tmp_path / "two", rig=head_rig(), cameras=cameras, fps=25, name="x") as writer:
        writer.add(picture, picture[..., 0], row)
        writer.add(np.zeros((16, 20, 3), np.uint8), np.zeros((16, 20), np.uint8), row, camera_index=1)
    with pytest.raises(DatasetError, match="different sizes"):
        make_feed(Dataset.load(tmp_path / "two"))
    monkeypatch.setattr(feed_module, "free_memory", lambda: 20_000.0)
    with pytest.raises(InvalidParameterError, match=r"set feed\.frame_limit to 3 or less"):
        make_feed(make_dataset(tmp_path / "large", 4, test=0), FeedConfig(crops="whole"))


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", 3, test=0)
    (dataset.path / dataset.image_files[1]).write_bytes(b"nothing")
    with pytest.raises(DatasetError, match=r"000001\.png"):
        make_feed(dataset)


@pytest.mark.gpu
@pytest.mark.parametrize("gigabytes", [0.0, 1.0])
def test_the_device_gets_what_the_cpu_gets(dataset: Dataset, gigabytes: float) -> None:
    config = FeedConfig(crops="foveated", window=(24, 16), device_gigabytes=gigabytes)
    expected, feed = make_feed(dataset, config), Feed(dataset, config, "cuda", seed=3, batch=2)
    steps = [(step, feed.sampler.view(step, 0.5)) for step in [*range(8), 3, 4]]  # goes back once
    for i, (step, view) in enumerate(steps):
        seen = look(feed, step, view, steps[i + 1 : i + 3])
        for mine, other in zip(seen, look(expected, step, view), strict=True):
            assert torch.equal(mine.cpu(), other)
    feed.close()
