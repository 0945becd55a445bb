"""The trainable avatar: how it starts, that it draws what the engine draws, and what is done to it between steps."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scenes import make_avatar, make_camera, make_params
from torch import Tensor

from being_rt import FlameParams, Renderer, reference
from being_rt.avatar.validation import validate_avatar
from being_rt.dataset import Dataset, DatasetWriter
from being_rt.errors import InvalidParameterError
from being_rt.flame.procedural import procedural_head
from being_rt.flame.skinning import bake_rig, skin
from being_rt.ops.skinning import RigTensors
from being_rt.ops.skinning import skin as skin_frames
from being_rt.train.adaptive import DORMANT_LOGIT
from being_rt.train.anchors import anchor_density, blend_weights, choose_anchors, features
from being_rt.train.background import background_plate
from being_rt.train.config import ModelConfig, RegularisationConfig
from being_rt.train.densify import densify
from being_rt.train.export import no_seam, to_avatar
from being_rt.train.frames import Frames
from being_rt.train.initialise import colours, new_model
from being_rt.train.model import TORSO_REACH, AvatarModel
from being_rt.train.mouth import mouth_seeds
from being_rt.train.networks import condition_noise
from being_rt.train.presets import PRESETS, preset
from being_rt.train.relocate import LEAST_OPACITY, Statistics, shared_opacity
from being_rt.train.surface import Part, Surface, hair_seeds, skin_seeds
from being_rt.train.torso import relief_weights
from being_rt.train.walk import Walk

WIDTH, HEIGHT = 112, 96
FRAMES = 6
SKIN, BACKGROUND = (200, 150, 120), (20, 60, 90)


@pytest.fixture(scope="module")
def rig() -> Any:
    return bake_rig(procedural_head(1))


@pytest.fixture(scope="module")
def surface(rig: Any) -> Surface:
    return Surface.of(rig)


@pytest.fixture(scope="module")
def mask() -> Any:
    """A head over shoulders, about where the camera sees the rig's."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    head = ((x - WIDTH / 2) / 24) ** 2 + ((y - 35) / 32) ** 2 < 1
    return head | ((y > 62) & (np.abs(x - WIDTH / 2) < 45))


@pytest.fixture(scope="module")
def dataset(rig: Any, mask: Any, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A flat-coloured person before a flat-coloured wall, who moves."""
    path = tmp_path_factory.mktemp("data") / "flat"
    camera = make_camera((WIDTH, HEIGHT), distance=0.9, field_of_view=30)
    params = make_params(FRAMES, seed=3, strength=0.7)
    picture = np.where(mask[..., None], SKIN, BACKGROUND).astype(np.uint8)
    with DatasetWriter(path, rig=rig, cameras=(camera,), fps=25, name="flat") as writer:
        for row in params:
            writer.add(picture, (255 * mask).astype(np.uint8), row)
    return Dataset.load(path)


def small(name: str = "being", **changes: Any) -> ModelConfig:
    config = preset(name).model
    few: dict[str, Any] = {
        "head_gaussians": 1000,
        "hair_gaussians": 200 if config.hair_gaussians else 0,
        "mouth_gaussians": min(config.mouth_gaussians, 120),
        "torso_gaussians": 250,
        "anchors": min(config.anchors, 24),
        "initial_share": max(config.initial_share, 0.5),
        "point_sizes": (32, 32),
    }
    return replace(config, **(few | changes))


def batch(dataset: Dataset, rows: slice = slice(0, 2), dtype: torch.dtype = torch.float32) -> Frames:
    return Frames.of(dataset.params[rows], dataset.cameras[0], dtype=dtype)


def shuffle(model: AvatarModel, seed: int = 0) -> None:
    """Random values where a new model has constants, so that a comparison means something."""
    generator = torch.Generator().manual_seed(seed)
    channels = torch.tensor([0.01] * 3 + [0.05] * 3 + [0.1] * 3 + [0.3] + [0.05] * 3)
    with torch.no_grad():
        for name, tensor in model.parameters.items():
            drawn = torch.randn(tensor.shape, generator=generator)
            if name == "network.basis":
                tensor.copy_(drawn * channels[:, None])
            elif name.endswith("colour"):
                tensor.copy_(torch.sigmoid(drawn))
            elif name.endswith("rotation"):
                tensor.add_(0.2 * drawn)
            elif name.endswith("log_scale"):  # or else rotations of round Gaussians have no gradient but rounding
                tensor.add_(0.3 * drawn)
            elif name.endswith("opacity_logit"):
                tensor.add_(drawn)
            elif name == "sheet.response":
                tensor.copy_(0.01 * drawn)
    model.set_progress(1.0)
    model.after_step()


# ------------------------------------------------------------------------------------------------ how it starts


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_draws_and_learns(name: str, dataset: Dataset) -> None:
    model = new_model(small(name), dataset)
    model.set_progress(0.9)
    frames = batch(dataset)
    layers = model.layers(frames)
    assert layers.picture.shape == (2, HEIGHT, WIDTH, 4)
    assert 0.05 < layers.picture[..., 3].mean() < 0.9
    (layers.picture.square().mean() + sum(model.regularisation(layers).values())).backward()
    hidden = {"network.trunk", "network.head", "network.anchor"}  # behind bases that are 0
    for parameter, tensor in model.parameters.items():
        assert tensor.grad is not None, parameter
        assert torch.isfinite(tensor.grad).all(), parameter
        if not any(parameter.startswith(part) for part in hidden):
            assert tensor.grad.abs().sum() > 0, parameter
    assert model.learning_rates(0.0).keys() == model.parameters.keys()
    assert all(rate > 0 for rate in model.learning_rates(0.0).values())


@pytest.mark.parametrize("name", ["being", "rgbavatar", "flashavatar"])
def test_offsets_start_small_and_all_of_the_network_learns(name: str, dataset: Dataset) -> None:
    model = new_model(small(name), dataset)
    model.set_progress(0.9)
    offsets = model.layers(batch(dataset)).offsets
    assert offsets is not None
    assert offsets[..., :3].abs().max() < 0.02  # metres
    assert name == "flashavatar" or not offsets.any()
    shuffle(model)
    changed = model.layers(batch(dataset)).offsets
    assert changed is not None
    moved = {
        "position": slice(0, 3),
        "rotation": slice(3, 6),
        "scale": slice(6, 9),
        "opacity": 9,
        "colour": slice(10, 13),
    }
    for channel, columns in moved.items():
        assert bool(changed[..., columns].any()) == (channel in model.config.channels)
    changed.square().sum().backward()
    for parameter, tensor in model.parameters.items():
        if parameter.startswith("network."):
            assert tensor.grad is not None, parameter
            assert tensor.grad.abs().sum() > 0, parameter


def test_same_seed_same_model(dataset: Dataset) -> None:
    first, second, other = (new_model(small(), dataset, seed=seed) for seed in (5, 5, 6))
    assert all(torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    assert not torch.equal(first.tensors["head.barycentric"], other.tensors["head.barycentric"])


def test_network_moves_nothing_before_its_start(dataset: Dataset) -> None:
    model = new_model(small(network_start=0.3), dataset)
    shuffle(model)
    for progress, moves in ((0.0, False), (0.29, False), (0.3, True), (1.0, True)):
        model.set_progress(progress)
        layers = model.layers(batch(dataset))
        assert (layers.offsets is not None and bool(layers.offsets.any())) == moves
        assert model.phase(progress) == moves
        assert "offset" in model.regularisation(layers)  # the columns of the losses stay the same


def test_skin_is_denser_where_faces_move(surface: Surface) -> None:
    generator = torch.Generator().manual_seed(0)
    seeds = skin_seeds(surface, 20_000, 0.5, 0.5, True, generator)
    per_area = torch.bincount(seeds.face, minlength=len(surface.area)) / surface.area.clamp(min=1e-12)
    plain = (surface.part == Part.SKIN) & (surface.density == 1)
    for part in (Part.LIP, Part.LID, Part.EYE):
        area = surface.area * (surface.part == part)
        ratio = (
            (per_area * area).sum()
            / area.sum()
            * (surface.area * plain).sum()
            / (per_area * surface.area * plain).sum()
        )
        assert ratio == pytest.approx(3.0, rel=0.1)
    assert set(seeds.part[seeds.facing].tolist()) == {Part.SKIN}
    # Skin lies on the mesh with its +Z along the normal.
    assert not seeds.position.any()
    assert torch.equal(seeds.rotation, torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(20_000, 4))


def test_hair_is_a_shell_over_the_scalp(surface: Surface) -> None:
    seeds = hair_seeds(surface, 2000, 0.5, 0.5, 0.03, torch.Generator().manual_seed(0))
    assert surface.scalp[seeds.face].all()
    places = surface.places(seeds.face, seeds.barycentric, seeds.position)
    base = surface.places(seeds.face, seeds.barycentric, torch.zeros_like(seeds.position))
    height = ((places - base) * surface.frames[seeds.face][:, :, 2]).sum(1)
    assert 0 <= height.min() < 0.002
    assert 0.028 < height.max() <= 0.03
    assert torch.allclose(surface.local(seeds.face, seeds.barycentric, places), seeds.position, atol=1e-12)


def test_teeth_move_with_their_jaw_and_not_with_the_skin(rig: Any, surface: Surface) -> None:
    seeds = mouth_seeds(surface, 400, 0.5, 0.5, torch.Generator().manual_seed(0))
    random = np.random.default_rng(0)
    still, smile = FlameParams.neutral(), FlameParams.neutral().replace(expression=random.normal(0, 1, (1, 100)))
    opened = FlameParams.neutral().replace(jaw=np.array([[0.3, 0, 0]]))

    def places(params: FlameParams) -> Tensor:
        vertices = torch.tensor(skin(rig, params)[0], dtype=torch.float64)
        inverse = torch.tensor(rig.face_frames, dtype=torch.float64)
        frames = reference.triangle_frames(vertices, surface.faces, inverse)[seeds.face]
        anchor = vertices[surface.faces[seeds.face]].mean(1)
        return anchor + (frames @ seeds.position[:, :, None])[:, :, 0]

    rest = places(still)
    lips = rig.template[procedural_head().regions["lips"]]
    low, high = lips.min(0), lips.max(0)
    assert (rest[:, 2] < high[2]).all()  # behind the lips
    assert (rest[:, 0].abs() < 1.2 * high[0]).all()
    assert low[1] - 0.02 < rest[:, 1].min() < rest[:, 1].max() < high[1] + 0.02
    drop = rest[:, 1] - places(opened)[:, 1]
    upper = torch.tensor(rig.skinning_weights[:, 2])[surface.faces[seeds.face]].amax(1) < 0.05
    assert 0.3 < upper.double().mean() < 0.7
    assert drop[upper].abs().max() < 0.001
    assert drop[~upper].min() > 0.004
    moved = (places(smile) - rest).norm(dim=1)
    skin_moved = np.linalg.norm(skin(rig, smile)[0] - rig.template, axis=1)[procedural_head().regions["lips"]]
    assert moved.max() < 0.25 * skin_moved.mean()


def test_anchors_are_not_shared_across_lips_and_lids(rig: Any, surface: Surface) -> None:
    generator = torch.Generator().manual_seed(0)
    seeds = skin_seeds(surface, 8000, 0.5, 0.5, True, generator)
    points = features(surface, seeds)
    anchors = choose_anchors(points, anchor_density(surface, seeds), 256, generator)
    assert len(set(anchors.tolist())) == 256
    index, weight = blend_weights(points, points[anchors])
    assert torch.allclose(weight.sum(1), torch.ones(len(weight), dtype=torch.float64))
    assert (weight >= 0).all()
    matrix = torch.zeros(len(points), 256, dtype=torch.float64).scatter_add(1, index.long(), weight)

    def follows(values: Any) -> Tensor:
        per_vertex = torch.tensor(values, dtype=torch.float64)
        return (seeds.barycentric * per_vertex[surface.faces[seeds.face]]).sum(1)

    jaw = follows(rig.skinning_weights[:, 2])
    lids = follows(np.linalg.norm(rig.eyelid_basis.astype(np.float64), axis=1).sum(1))
    lip, lid = seeds.part == Part.LIP, seeds.part == Part.LID
    for one, other in (
        (lip & (jaw > 0.8), lip & (jaw < 0.1)),
        (lid & (lids > 0.7 * lids.max()), lid & (lids < 0.1 * lids.max())),
    ):
        assert one.sum() > 20
        assert other.sum() > 20
        assert torch.minimum(matrix[one].mean(0), matrix[other].mean(0)).sum() < 0.02
    counts = torch.bincount(surface.part[seeds.face[anchors]].long(), minlength=4)
    assert counts[Part.LIP] > 40
    assert counts[Part.LID] > 30


def test_anchor_weights_change_smoothly() -> None:
    random = torch.Generator().manual_seed(0)
    anchors = torch.rand(40, 7, generator=random, dtype=torch.float64)
    ends = torch.rand(2, 7, generator=random, dtype=torch.float64)
    steps = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:, None]
    index, weight = blend_weights((1 - steps) * ends[0] + steps * ends[1], anchors)
    matrix = torch.zeros(len(steps), 40, dtype=torch.float64).scatter_add(1, index.long(), weight)
    assert len(torch.unique(index[:, 0])) > 2  # the path passes several anchors
    assert matrix.diff(dim=0).abs().max() < 0.001
    alone, one = blend_weights(anchors, anchors[:1])
    assert not alone.any()
    assert torch.equal(one, torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64).expand(40, 4))


def test_more_anchors_than_gaussians_are_refused(dataset: Dataset) -> None:
    config = small(head_gaussians=50, hair_gaussians=0, mouth_gaussians=0, anchors=64)
    with pytest.raises(InvalidParameterError, match="64 anchors need as many Gaussians, the head has 50"):
        new_model(config, dataset)


def test_torso_lies_where_masks_show_it_and_the_head_is_not(dataset: Dataset, mask: Any) -> None:
    model = new_model(small(torso_gaussians=600), dataset)
    assert model.count("torso") == 600
    assert torch.allclose(model.torso_weights().sum(1), torch.ones(600))
    row = int(
        np.linalg.norm(dataset.params.translation - np.median(dataset.params.translation, axis=0), axis=1).argmin()
    )
    splats = model.layers(batch(dataset, slice(row, row + 1))).torso_splats
    assert splats is not None
    x, y = splats[0, :, 0].detach().long(), splats[0, :, 1].detach().long()
    inside = (x >= 0) & (x < WIDTH) & (y >= 0) & (y < HEIGHT)
    assert inside.float().mean() > 0.95
    shown = mask[y[inside], x[inside]]
    assert shown.mean() > 0.9
    shoulders = (y[inside] > 75).float().mean()
    assert shoulders > 0.3
    assert torch.allclose(model.tensors["torso.colour"].median(0).values, torch.tensor(SKIN) / 255, atol=0.01)


def test_nothing_beside_the_head_means_no_torso(dataset: Dataset) -> None:
    nothing = copy.copy(dataset)
    object.__setattr__(nothing, "mask", lambda index: np.zeros((HEIGHT, WIDTH), np.uint8))
    model = new_model(small(), nothing)
    assert model.count("torso") == 0
    layers = model.layers(batch(dataset))
    assert layers.torso_splats is None
    assert layers.picture[..., 3].max() > 0.5
    statistics = Statistics.of(model)
    layers.picture.sum().backward()
    statistics.accumulate(layers, batch(dataset))
    densify(model, statistics, torch.Generator())
    validate_avatar(to_avatar(model, "bust", dataset.cameras[0], np.zeros((HEIGHT, WIDTH, 3), np.uint8)))


def test_a_data_set_without_training_frames_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InvalidParameterError, match="'flat' has no training frame of its first camera"):
        new_model(small(), replace(dataset, splits=("test",) * dataset.count))


# ------------------------------------------------------------------------------------------------ colours, background


def test_colours_are_those_of_the_pixels(dataset: Dataset) -> None:
    model = new_model(small(), dataset)
    frames = batch(dataset, slice(0, 3))
    left = torch.arange(WIDTH) < WIDTH // 2  # the person's right half; the wall is where the other should be
    rows = torch.where(left[:, None], torch.tensor([*SKIN, 255]), torch.tensor([*BACKGROUND, 0])).to(torch.uint8)
    images = rows.expand(3, HEIGHT, WIDTH, 4)
    before = model.tensors["head.opacity_logit"].clone()
    colours(model, frames, images)
    picture = model.render(frames).detach()
    person, wall = picture[:, :, : WIDTH // 2 - 8], picture[:, :, WIDTH // 2 + 8 :]
    full = person[..., 3] > 0.5
    assert full.sum() > 1000
    assert (person[full][:, :3] / person[full][:, 3:] - torch.tensor(SKIN) / 255).abs().mean() < 0.01
    assert wall[..., 3].mean() < 0.2 * person[..., 3].mean()
    # What shows the wall instead of the person has become fainter.
    colour = model.tensors["head.colour"]
    change = model.tensors["head.opacity_logit"].detach() - before
    wall, person = ((colour - torch.tensor(c) / 255).norm(dim=1) < 0.01 for c in (BACKGROUND, SKIN))
    seen = change != 0
    assert (wall & seen).sum() > 100
    assert change[wall & seen].max() < -1
    assert person.sum() > 100
    assert change[person].abs().max() < 0.5
    # The image's alpha is optional; it decides on opacities alone.
    again = new_model(small(), dataset)
    colours(again, frames, images[..., :3].contiguous())
    assert torch.equal(again.tensors["head.opacity_logit"], before)
    assert torch.allclose(again.tensors["head.colour"], colour, atol=1e-5)


def test_colours_are_weighted_means(dataset: Dataset) -> None:
    model = new_model(small(hair_gaussians=0), dataset)
    random = np.random.default_rng(0)
    images = torch.tensor(random.integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8))
    frames = batch(dataset)
    with torch.no_grad():
        model.tensors["head.colour"].fill_(0.5)
    weight = torch.autograd.grad(model.render(frames)[..., 0].sum(), model.tensors["head.colour"])[0][:, 0]
    i = int(weight.argmax())
    with torch.no_grad():  # the picture is linear in colours, so weights are differences of pictures
        dark = model.render(frames)[..., 0]
        model.tensors["head.colour"][i, 0] = 1.0
        weights = (model.render(frames)[..., 0] - dark) / 0.5
        expected = (weights[..., None] * images / 255).sum((0, 1, 2)) / weights.sum()
    colours(model, frames, images)
    assert torch.allclose(model.tensors["head.colour"][i], expected, atol=2e-3)


def test_hair_behind_the_head_does_not_take_the_faces_colour(dataset: Dataset) -> None:
    grey = torch.full((2, HEIGHT, WIDTH, 3), 90, dtype=torch.uint8)
    flushed = grey.clone()
    flushed[:, 38:58, 46:66] = torch.tensor([250, 0, 0], dtype=torch.uint8)
    surface = Surface.of(dataset.rig)
    found = []
    for images in (grey, flushed):
        model = new_model(small(hair_gaussians=400), dataset)
        colours(model, batch(dataset), images)
        found.append(model.tensors["head.colour"].detach())
    face, part = model.tensors["head.face"].long(), model.tensors["head.part"]
    outwards = surface.frames[face][:, :, 2]
    behind = (part == Part.HAIR) & (outwards[:, 2] < -0.5)
    assert behind.sum() > 50
    assert torch.equal(found[0][behind], found[1][behind])
    assert (found[0] != found[1]).any(dim=1).sum() > 50  # the face did


def test_colours_refuse_other_images(dataset: Dataset) -> None:
    model = new_model(small(), dataset)
    with pytest.raises(InvalidParameterError, match=r"images must be uint8 \[2, 96, 112, 3 or 4\], got torch.float32"):
        colours(model, batch(dataset), torch.zeros(2, HEIGHT, WIDTH, 3))


def test_background_is_what_masks_leave(dataset: Dataset, mask: Any) -> None:
    plate = background_plate(dataset)
    assert plate.dtype == np.uint8
    assert np.array_equal(plate[~mask], np.broadcast_to(np.uint8(BACKGROUND), plate[~mask].shape))
    assert np.abs(plate.astype(int) - BACKGROUND).max() <= 1  # and behind the person, the colour around
    with pytest.raises(InvalidParameterError, match="camera_index"):
        background_plate(dataset, 3)


# ------------------------------------------------------------------------------------------------ the engine


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "flashavatar"])
def test_engine_draws_what_was_trained(name: str, dataset: Dataset) -> None:
    model = new_model(small(name), dataset)
    shuffle(model)
    plate = np.full((HEIGHT, WIDTH, 3), (30, 90, 200), np.uint8)
    camera = dataset.cameras[0]
    avatar = to_avatar(model, "Ada", camera, plate, licence="CC0-1.0", consent="synthetic", metadata={"steps": "0"})
    validate_avatar(avatar)
    assert avatar.metadata == {"preset": name, "steps": "0"}
    renderer = Renderer(avatar, size=camera.size)
    for row in range(2):
        drawn = renderer.render(dataset.params[row]).astype(np.float64)
        frames = Frames.of(dataset.params[row], camera, plate)
        picture = (model.render(frames)[0, ..., :3].detach().clamp(0, 1) * 255).double().numpy()
        assert np.abs(drawn - picture).mean() < 0.5
        assert np.quantile(np.abs(drawn - picture), 0.999) < 2


def test_a_ring_of_radius_0_is_no_seam() -> None:
    avatar = make_avatar(seed=1, head_count=150, torso_count=100)  # sparse: there are gaps to fill
    bare = replace(avatar, seam=no_seam(avatar.seam.depth_softness))
    validate_avatar(bare)
    params = make_params(1)
    drawn = Renderer(bare, size=(160, 120)).render(params, format="rgba")
    expected = reference.frame(bare, params, (160, 120), background="transparent")
    head, torso = expected.head, expected.torso
    colour, alpha, _ = reference.composite(head, torso, bare.seam.depth_softness)
    assert torch.equal(expected.alpha, alpha)
    assert torch.equal(expected.colour, colour)
    assert np.abs(drawn[..., 3] / 255 - alpha.numpy()).max() < 3 / 255
    filled = reference.frame(avatar, params, (160, 120), background="transparent")
    assert (filled.alpha - alpha).abs().max() > 0.05  # a seam that is there does something


def test_export_refuses_what_the_format_does_not_hold(dataset: Dataset) -> None:
    plate = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    model = new_model(small("flashavatar"), dataset)
    with pytest.raises(InvalidParameterError, match="preset 'flashavatar' has a network per Gaussian"):
        to_avatar(model, "x", dataset.cameras[0], plate)
    model = new_model(small(), dataset)
    model.set_progress(1.0)  # the network has set in
    with torch.no_grad():
        model.tensors["network.basis"][0, 0, 0] = 1e9
    with pytest.raises(InvalidParameterError, match="beyond the half floats"):
        to_avatar(model, "x", dataset.cameras[0], plate)
    with torch.no_grad():
        model.tensors["head.position"][0, 0] = torch.nan
    with pytest.raises(InvalidParameterError, match=r"head\.position has values that are NaN"):
        to_avatar(model, "x", dataset.cameras[0], plate)


def test_a_refined_template_is_exported(dataset: Dataset) -> None:
    config = small()
    config = replace(config, learning_rates=replace(config.learning_rates, template=1e-5))
    model = new_model(config, dataset)
    model.render(batch(dataset)).sum().backward()
    template = model.parameters["rig.template"]
    assert template.grad is not None
    assert template.grad.any()
    with torch.no_grad():
        template += 0.001
    avatar = to_avatar(model, "x", dataset.cameras[0], np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert np.allclose(avatar.rig.template, dataset.rig.template + 0.001, atol=1e-6)


# ------------------------------------------------------------------------------------------------ between steps


def test_a_few_steps_bring_the_picture_closer(dataset: Dataset) -> None:
    model = new_model(small(), dataset)
    frames = batch(dataset)
    target = torch.tensor(np.stack([dataset.image(i) for i in range(2)])) / 255
    optimiser = torch.optim.Adam([{"params": [p], "name": n} for n, p in model.parameters.items()], eps=1e-15)
    losses = []
    for step in range(6):
        model.set_progress(step / 6)
        rates = model.learning_rates(step / 6)
        for group in optimiser.param_groups:
            group["lr"] = 4 * rates[group["name"]]
        layers = model.layers(frames)
        loss = (layers.picture[..., :3] - target).abs().mean()
        optimiser.zero_grad()
        (loss + sum(model.regularisation(layers).values())).backward()
        optimiser.step()
        model.after_step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert torch.allclose(model.tensors["head.rotation"].norm(dim=1), torch.ones(model.count("head")))
    assert model.tensors["head.colour"].min() >= 0


def test_gaussians_of_the_torso_stay_about_where_they_began(dataset: Dataset) -> None:
    model = new_model(small(), dataset)
    position, home = model.tensors["torso.position"], model.tensors["torso.home"]
    assert "torso.home" not in model.parameters
    moves = torch.tensor([0.004, -0.3, 0.2]).expand_as(position)
    with torch.no_grad():
        position += moves
    model.after_step()
    expected = home + torch.tensor([0.004, -TORSO_REACH, 0.2])  # forwards they may go: depths are guesses
    torch.testing.assert_close(position.detach(), expected)
    assert "torso.home" in model.gaussian_rows("torso")  # copies are held where their sources are


def test_regularisers_cost_nothing_within_their_limits(dataset: Dataset) -> None:
    regular = RegularisationConfig(opacity=0.1, opacity_start=0.5)
    model = new_model(small(regularisation=regular), dataset)
    layers = model.layers(batch(dataset))
    terms = model.regularisation(layers)
    assert terms.keys() == {"position", "scale", "torso scale", "response", "offset", "opacity"}
    assert not any(term.any() for term in terms.values())
    shuffle(model)
    with torch.no_grad():
        model.tensors["head.position"][:500, 2] += 0.1
        model.tensors["head.log_scale"][:500] += 2
        model.tensors["torso.log_scale"][:, 0] += 3
    terms = model.regularisation(model.layers(batch(dataset)))
    for name, term in terms.items():
        assert term > 0, name
    gradient = torch.autograd.grad(terms["position"], model.tensors["head.position"])[0]
    assert (gradient[:500, 2] > 0).all()  # back to the mesh
    assert not gradient[500:].any()
    off = replace(regular, position=0.0, scale=0.0, offset=0.0, opacity=0.0)
    off_model = new_model(small(regularisation=off), dataset)
    # The torso is the same in all presets.
    assert off_model.regularisation(layers).keys() == {"torso scale", "response"}


def test_lids_and_lips_keep_closer_to_the_mesh_than_hair(dataset: Dataset) -> None:
    model = new_model(small(), dataset)
    part, limit = model.tensors["head.part"], model.tensors["head.limit"]
    means = {kind: float(limit[part == kind].mean()) for kind in Part}
    assert means[Part.LID] == pytest.approx(means[Part.LIP])
    assert means[Part.LIP] < means[Part.SKIN] < means[Part.HAIR]


def test_learning_rates_decay(dataset: Dataset) -> None:
    model = new_model(small("rgbavatar"), dataset)
    start, middle, end = (model.learning_rates(progress) for progress in (0.0, 0.3, 1.0))
    assert start["head.position"] == pytest.approx(8e-4)
    assert middle["head.position"] == pytest.approx(8e-5)
    assert end["head.position"] == pytest.approx(8e-6)
    assert start["head.opacity_logit"] == end["head.opacity_logit"] == 0.25
    factors = model.channel_factors()
    model.set_progress(1.0)
    factors = model.channel_factors() * start["network.basis"]
    assert factors[0].item() == pytest.approx(0.05 * 8e-4)
    assert factors[3].item() == pytest.approx(0.5 * 5e-3)
    assert not factors[6:10].any()
    ours = new_model(small(), dataset)
    assert ours.learning_rates(1.0)["head.colour"] == pytest.approx(0.1 * ours.learning_rates(0.0)["head.colour"])


def test_a_factor_on_learning_rates(dataset: Dataset) -> None:
    config = small()
    fast = replace(config, learning_rates=replace(config.learning_rates, factor=4.0))
    given, faster = (new_model(each, dataset).learning_rates(0.5) for each in (config, fast))
    for name, rate in given.items():
        assert faster[name] == pytest.approx(rate if name.startswith("sheet.") else 4 * rate)
    assert {name.split(".")[0] for name in given} == {"head", "torso", "network", "sheet"}
    with pytest.raises(InvalidParameterError, match="factor must be positive"):
        replace(config, learning_rates=replace(config.learning_rates, factor=0.0)).check()


def test_points_walk_over_edges(surface: Surface) -> None:
    walk = Walk.over(surface, torch.device("cpu"), torch.float64)
    face = torch.nonzero((walk.neighbour >= 0).all(1) & (surface.part == Part.SKIN))[:200, 0]
    barycentric = torch.tensor([-0.05, 0.5, 0.55], dtype=torch.float64).repeat(len(face), 1)
    rotation = torch.nn.functional.normalize(torch.randn(len(face), 4, dtype=torch.float64), dim=1)
    flat = torch.zeros(len(face), 3, dtype=torch.float64)
    place = surface.places(face, barycentric, flat)
    turned = surface.frames[face] @ reference.quaternion_matrix(rotation)
    new_face, new_barycentric, new_rotation = face.int(), barycentric.clone(), rotation.clone()
    walk.settle(new_face, new_barycentric, new_rotation)
    assert torch.equal(new_face.long(), walk.neighbour[face, 0])
    assert (new_barycentric >= 0).all()
    assert torch.allclose(new_barycentric.sum(1), torch.ones(len(face), dtype=torch.float64))
    edge = surface.area[face].sqrt()
    jump = (surface.places(new_face.long(), new_barycentric, flat) - place).norm(dim=1) / edge
    assert jump.median() < 0.02  # all that is lost is the bend at the edge
    assert jump.quantile(0.95) < 0.1
    now = surface.frames[new_face.long()] @ reference.quaternion_matrix(new_rotation)
    assert torch.allclose(now, turned, atol=1e-5)
    # Within a triangle nothing changes; at the border of the mesh a point stops.
    inside = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    one_face, one_rotation = face[:1].int(), rotation[:1].clone()
    walk.settle(one_face, inside, one_rotation)
    assert torch.equal(inside, torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64))
    assert torch.equal(one_rotation, rotation[:1])
    border = torch.nonzero((walk.neighbour < 0) & (surface.area > 0)[:, None])
    if len(border):
        rim, corner = border[0]
        outside = torch.full((1, 3), 0.6, dtype=torch.float64)
        outside[0, corner] = -0.2
        rim_face = rim[None].int()
        walk.settle(rim_face, outside, one_rotation)
        assert int(rim_face) == int(rim)
        assert float(outside[0, corner]) == 0


def test_splatting_points_walk_while_they_train(dataset: Dataset) -> None:
    model = new_model(small("splattingavatar"), dataset)
    face = model.tensors["head.face"]
    address, before = face.data_ptr(), face.clone()
    with torch.no_grad():
        model.tensors["head.barycentric"][:, 0] -= 0.6
        model.tensors["head.position"].fill_(0.01)
    model.after_step()
    assert face.data_ptr() == address
    assert (face != before).float().mean() > 0.3
    assert model.tensors["head.barycentric"].min() >= 0
    assert not model.position("head")[:, :2].any()  # off the mesh along the normal only
    assert torch.isfinite(model.render(batch(dataset))).all()


# ------------------------------------------------------------------------------------------------ densification


@pytest.mark.parametrize("opacity", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("copies", [2, 3, 7])
def test_copies_together_look_like_one(opacity: float, copies: int) -> None:
    new, shrink = shared_opacity(torch.tensor([opacity]), torch.tensor([copies]))
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    one = opacity * torch.exp(-x * x / 2)
    together = 1 - (1 - new * torch.exp(-x * x / (2 * shrink * shrink))) ** copies
    assert float(together.max()) == pytest.approx(opacity, rel=1e-6)
    assert float(together.sum()) == pytest.approx(float(one.sum()), rel=1e-6)
    assert (together - one).abs().max() < 0.12 * opacity


def trained_statistics(model: AvatarModel, dataset: Dataset) -> Any:
    frames = batch(dataset)
    statistics = Statistics.of(model)
    layers = model.layers(frames)
    target = torch.rand(layers.picture.shape, generator=torch.Generator().manual_seed(0))
    (layers.picture - target).abs().mean().backward()
    statistics.accumulate(layers, frames)
    assert statistics.head.gradient.max() > 0
    assert statistics.head.count.max() == 2
    return statistics


def test_relocation_revives_the_dead_and_keeps_the_picture(dataset: Dataset) -> None:
    model = new_model(small(), dataset)
    shuffle(model)
    frames = batch(dataset)
    with torch.no_grad():
        model.tensors["head.opacity_logit"][:200] = -9
        model.tensors["network.basis"][:, 9] = 0
    before = model.render(frames).detach()
    statistics = trained_statistics(model, dataset)
    addresses = {name: tensor.data_ptr() for name, tensor in model.tensors.items()}
    twin = copy.deepcopy(statistics)
    twin_model = AvatarModel.from_state(model.config, model.rig, *model.state())
    changed = densify(model, statistics, torch.Generator().manual_seed(1))
    assert {name: tensor.data_ptr() for name, tensor in model.tensors.items()} == addresses
    rows = changed["head.position"]
    assert set(range(200)) <= set(rows.tolist())
    assert changed.keys() == {n for n in model.parameters if n.startswith("head.")} | {"network.basis"} | (
        {n for n in model.parameters if n.startswith("torso.")} if "torso.position" in changed else set()
    )
    assert (torch.sigmoid(model.tensors["head.opacity_logit"][:200]) > LEAST_OPACITY / 20).all()
    assert not any(tensor.any() for tensor in statistics.tensors().values())
    after = model.render(frames).detach()
    assert (after - before).abs().mean() < 0.01
    # The same generator moves the same Gaussians to the same places.
    densify(twin_model, twin, torch.Generator().manual_seed(1))
    assert all(torch.equal(model.tensors[name], twin_model.tensors[name]) for name in model.tensors)


def test_some_of_what_no_frame_shows_stays(dataset: Dataset) -> None:
    model = new_model(small(), dataset)
    statistics = trained_statistics(model, dataset)
    unseen = statistics.head.gradient == 0
    places = model.tensors["head.face"].clone()
    densify(model, statistics, torch.Generator().manual_seed(0))
    kept = (model.tensors["head.face"] == places) & unseen
    assert unseen.sum() > 100
    assert 0.2 < kept.sum() / unseen.sum() < 0.4  # one in four, and a few that drew their own triangle


def test_relocation_without_statistics_or_by_configuration_moves_nothing(dataset: Dataset) -> None:
    model = new_model(small(), dataset)
    before = model.state()[0]
    assert densify(model, Statistics.of(model), torch.Generator()) == {}
    still = new_model(small(densification="none"), dataset)
    assert densify(still, trained_statistics(still, dataset), torch.Generator()) == {}
    assert all(torch.equal(before[name], still.tensors[name].detach()) for name in before)


def test_adaptive_density_clones_splits_and_forgets(dataset: Dataset) -> None:
    model = new_model(small("splattingavatar"), dataset)
    logit = model.tensors["head.opacity_logit"]
    asleep = logit <= 0.5 * DORMANT_LOGIT
    assert asleep.sum() == 500
    statistics = Statistics.of(model)
    statistics.head.count.fill_(2)
    statistics.head.gradient[:4] = 1.0
    with torch.no_grad():
        model.tensors["head.log_scale"][:2] = np.log(0.001)  # cloned
        model.tensors["head.log_scale"][2:4] = np.log(0.02)  # split
        logit[10] = -5.5  # dies
    faces = model.tensors["head.face"][:4].clone()
    changed = densify(model, statistics, torch.Generator().manual_seed(0))
    awake = torch.nonzero((logit > 0.5 * DORMANT_LOGIT).flatten())[:, 0]
    assert len(awake) == 500 - 1 + 4
    assert {10, 2, 3} <= set(changed["head.position"].tolist())
    born = [int(i) for i in awake if asleep[i] or i == 10]
    assert sorted(model.tensors["head.face"][born].tolist()) == sorted(faces.tolist())
    assert model.tensors["head.log_scale"][2:4].detach().exp().numpy() == pytest.approx(0.02 / 1.6, rel=1e-5)
    assert sorted(model.scale("head")[born].amax(1).tolist()) == pytest.approx([0.001, 0.001, 0.0125, 0.0125], rel=1e-4)
    model.set_progress(0.2)
    statistics.head.count.fill_(1)
    changed = densify(model, statistics, torch.Generator())
    assert torch.sigmoid(logit[awake]).max() <= 0.0101
    assert len(changed["head.opacity_logit"]) == model.count("head")


def test_a_triangle_keeps_its_last_gaussian(dataset: Dataset) -> None:
    model = new_model(small("gaussianavatars"), dataset)
    statistics = Statistics.of(model)
    with torch.no_grad():
        model.tensors["head.opacity_logit"][:500] = -5.5
    alone = torch.bincount(model.tensors["head.face"][:500].long(), minlength=len(model.rig.faces)) == 1
    densify(model, statistics, torch.Generator())
    kept = model.tensors["head.opacity_logit"][:500] > -7
    assert kept[alone[model.tensors["head.face"][:500].long()]].all()


# ------------------------------------------------------------------------------------------------ states


def test_a_state_brings_the_model_back(dataset: Dataset) -> None:
    model = new_model(small(), dataset)
    shuffle(model)
    model.set_progress(0.4)
    tensors, description = model.state()
    description = json.loads(json.dumps(description))
    picture = model.render(batch(dataset)).detach()
    other = new_model(small(), dataset, seed=9)
    addresses = [tensor.data_ptr() for tensor in other.tensors.values()]
    other.load_state(tensors, description)
    assert [tensor.data_ptr() for tensor in other.tensors.values()] == addresses
    assert other.progress == 0.4
    assert torch.equal(other.render(batch(dataset)), picture)
    assert other.parameters.keys() == model.parameters.keys()
    restored = AvatarModel.from_state(model.config, model.rig, tensors, description)
    assert torch.equal(restored.render(batch(dataset)), picture)


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(dataset: Dataset) -> None:
    model = new_model(small(), dataset)
    before, description = model.state()
    tensors = dict(before)
    tensors["head.colour"] = tensors["head.colour"] + 1
    cases: list[tuple[dict[str, Tensor], dict[str, Any], str]] = [
        ({k: v for k, v in tensors.items() if k != "head.face"}, description, "'head.face' is in one of them only"),
        (
            tensors | {"torso.colour": torch.zeros(3, 3)},
            description,
            r"torso\.colour is torch.float32 \[3, 3\], expected",
        ),
        (tensors | {"head.part": tensors["head.part"].int()}, description, "head.part is torch.int32"),
        (tensors, description | {"format_version": 9}, "has version 9"),
    ]
    for given, text, message in cases:
        with pytest.raises(InvalidParameterError, match=message):
            model.load_state(given, text)
    assert all(torch.equal(before[name], model.tensors[name].detach()) for name in before)
    with pytest.raises(InvalidParameterError, match=r"has no tensor 'head\.position'"):
        AvatarModel.from_state(model.config, model.rig, {}, description)


def test_relief_is_a_smooth_depth(dataset: Dataset) -> None:
    x, y = np.meshgrid(np.linspace(-0.2, 0.25, 40), np.linspace(-0.31, -0.1, 20))
    place = torch.tensor(np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1))
    weight = relief_weights(place)
    assert weight.shape[1] == 10 * 6  # knots at most 5 cm apart
    torch.testing.assert_close(weight.sum(1), torch.ones(len(place), dtype=torch.float64))
    assert ((weight > 0).sum(1) <= 4).all()
    for values in (x, y):  # bilinear between its knots: planes are exact
        plane = torch.tensor(values.ravel())
        fitted = weight @ torch.linalg.lstsq(weight, plane[:, None]).solution[:, 0]
        torch.testing.assert_close(fitted, plane, atol=1e-9, rtol=0)
    assert relief_weights(place[:0]).shape == (0, 1)

    model = new_model(small(), dataset)
    before = model.position("torso").detach().clone()
    with torch.no_grad():
        model.parameters["sheet.relief"].fill_(0.02)
    moved = model.position("torso") - before
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.0, 0.02]).expand_as(moved), atol=1e-6, rtol=0)


def test_the_network_hears_noise_in_training_only(dataset: Dataset) -> None:
    chance = torch.tensor([0.3, 1.0])
    for size in (0.5, 0.0):
        config = small()
        model = new_model(replace(config, regularisation=replace(config.regularisation, noise=size)), dataset)
        shuffle(model)
        clean, noisy, again = (model.render(batch(dataset)._replace(chance=c)) for c in (None, chance, chance))
        assert torch.equal(noisy, again)
        assert torch.equal(noisy, clean) == (size == 0)


def test_noise_is_as_large_as_the_motion(dataset: Dataset) -> None:
    model = new_model(small(), dataset, dtype=torch.float64)
    everyone = batch(dataset, slice(None), torch.float64)
    rig = RigTensors.of(model.rig, "cpu", torch.float64)
    told = skin_frames(rig, everyone.expression, everyone.axis_angles, everyone.eyelids, everyone.translation)
    spread = told.condition.std(0, correction=0)
    torch.testing.assert_close(model.tensors["network.spread"], spread, rtol=1e-5, atol=1e-7)
    noise = condition_noise(spread, 0.5)
    assert (noise.std(0) / (0.5 * spread) - 1)[spread > 1e-6].abs().max() < 0.06
    assert noise[:, spread == 0].abs().sum() == 0


def test_unknown_presets_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="there is no preset 'gauss'; there are being, rgbavatar"):
        preset("gauss")
    for name in PRESETS:
        assert preset(name).model.preset == name


# ------------------------------------------------------------------------------------------------ CUDA


@pytest.mark.gpu
@pytest.mark.parametrize("name", PRESETS)
def test_cuda_draws_what_the_cpu_draws(name: str, dataset: Dataset) -> None:
    host, device = (new_model(small(name), dataset, kind) for kind in ("cpu", "cuda"))
    shuffle(host)
    device.load_state(*host.state())
    pictures = []
    for model in (host, device):
        frames = Frames.of(dataset.params[:2], dataset.cameras[0], device=model.device)
        picture = model.render(frames)
        picture.square().mean().backward()
        pictures.append(picture.detach().cpu())
    assert (pictures[0] - pictures[1]).abs().mean() < 1e-4
    for parameter, tensor in host.parameters.items():
        other = device.parameters[parameter].grad
        assert tensor.grad is not None
        assert other is not None
        scale = tensor.grad.norm() + 1e-12
        assert (other.cpu() - tensor.grad).norm() / scale < 0.02, parameter
