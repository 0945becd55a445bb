"""The native core by itself: its engine's corners and the build's promises. Operations against their twins are in
test_reference_native."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import make_avatar, make_camera, make_params

from being_rt import _C
from being_rt.errors import InvalidParameterError
from being_rt.reference import compare
from being_rt.renderer import Renderer


@pytest.mark.parametrize(("heads", "torsos"), [(3000, 0), (0, 3000), (2500, 2000)])
def test_long_lists(heads: int, torsos: int) -> None:
    """Thousands of splats on a macro tile or two: batches, with their states kept between them."""
    avatar = make_avatar(seed=6, head_count=heads, torso_count=torsos, network=False, antialiased=False, size=(40, 30))
    # Faint ones, so that no pixel is opaque before the last batch.
    for layer in (avatar.head, avatar.torso):
        layer.gaussians.opacity_logit[:] -= 3.5
    params = make_params(seed=6)
    renderer = Renderer(avatar, size=(40, 30), threads=2)
    result = compare(renderer.render(params), avatar, params, size=(40, 30), doubt_margin=1e-3)
    assert renderer.splats()["visible"].sum() > 1024
    assert result.psnr > 50
    assert result.largest <= 2


def test_lists_grow() -> None:
    """From a far camera, where each splat is on one macro tile, to one so near that each is on hundreds."""
    avatar = make_avatar(seed=7, size=(640, 480))
    params = make_params(seed=7)
    renderer = Renderer(avatar, size=(640, 480))
    renderer.render(params, camera=make_camera((640, 480), distance=40.0))
    before = renderer.memory
    near = make_camera((640, 480), distance=0.2, field_of_view=60)
    grown = renderer.render(params, camera=near)
    assert renderer.memory > before
    np.testing.assert_array_equal(grown, Renderer(avatar, size=(640, 480), camera=near).render(params))


def test_levels() -> None:
    levels = _C.simd_levels()
    assert levels[0] == "baseline"
    assert len(set(levels)) == len(levels)


@pytest.mark.parametrize("level", _C.simd_levels())
@pytest.mark.parametrize("format", ["rgb", "rgba", "nv12"])
def test_levels_agree(level: str, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    avatar, params = make_avatar(seed=8, size=(101, 77)), make_params(seed=8)
    size = (102, 78)
    expected = Renderer(avatar, size=size, threads=1).render(params, format=format).astype(int)  # type: ignore[arg-type]
    monkeypatch.setenv("BEING_RT_SIMD", level)
    renderer = Renderer(avatar, size=size, threads=1)
    assert renderer.simd == level
    got = renderer.render(params, format=format).astype(int)  # type: ignore[arg-type]
    difference = np.abs(got - expected)
    if format == "rgba":
        difference[..., :3] = difference[..., :3] * expected[..., 3:] // 255
    # An alpha at the cut-off may fall on either side of it, which moves single pixels by up to a few steps.
    assert (difference > 1).mean() < 1e-3
    assert difference.max() <= 8


def test_facing_away_is_not_drawn() -> None:
    """Gaussians that fade are gone from behind, in whole blocks or lane by lane, with offsets and without."""
    for network in (False, True):
        avatar = make_avatar(seed=9, torso_count=0, network=network, size=(160, 120))
        gaussians = replace(avatar.head.gaussians, facing_fade=np.ones(avatar.head.gaussians.count, bool))
        avatar = replace(avatar, head=replace(avatar.head, gaussians=gaussians))
        params = make_params(seed=9, strength=0.3)
        renderer = Renderer(avatar, size=(160, 120))
        assert compare(renderer.render(params), avatar, params, size=(160, 120)).psnr > 50
        # A closed egg shows less than half of itself and a fading rim.
        assert 0.3 < renderer.splats()["visible"].mean() < 0.75


def test_skin_checks_its_arguments() -> None:
    rig, params = make_avatar(head_count=10, torso_count=10).rig, make_params(2)
    arguments = dict(
        template=rig.template,
        expression_basis=rig.expression_basis,
        eyelid_basis=rig.eyelid_basis,
        pose_basis=rig.pose_basis,
        skinning_weights=rig.skinning_weights,
        joint_rest=rig.joint_rest,
        joint_expression=rig.joint_expression,
    ) | {name: value for name, value in vars(params).items() if name != "fps"}
    assert _C.skin(**arguments).shape == (2, len(rig.template), 3)
    for name, value, message in (
        ("template", rig.template.astype(np.float64), "template must be float32"),
        ("pose_basis", rig.pose_basis[:5], "pose_basis must be float16"),
        ("eyes", params.eyes[:, :3].copy(), "eyes must be float32"),
        ("jaw", params.jaw[:1], "jaw must be float32"),
        ("expression", np.asfortranarray(params.expression), "C-contiguous"),
        ("neck", [[0, 0, 0]], "neck must be a NumPy array"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            _C.skin(**{**arguments, name: value})


def test_an_empty_frame_of_motion() -> None:
    rig, params = make_avatar(head_count=10, torso_count=10).rig, make_params(1)
    motion = {name: value[:0] for name, value in vars(params).items() if name != "fps"}
    rest = [getattr(rig, name) for name in ("template", "expression_basis", "eyelid_basis", "pose_basis")]
    result = _C.skin(*rest, rig.skinning_weights, rig.joint_rest, rig.joint_expression, **motion)
    assert result.shape == (0, len(rig.template), 3)


def test_the_core_needs_no_pytorch(tmp_path: Path) -> None:
    code = "import sys, being_rt.renderer, being_rt._C; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)  # elsewhere: the package installed, not ./
