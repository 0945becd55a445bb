"""Named configurations: ours, and the published methods as this trainer can express them.

A preset of a published method has its binding, its offset network, its losses, its learning rates and its rule for
densification, so that methods can be compared on the same frames with the same masks, tracks and split. What is ours in
all of them: the torso layer and the background (none of them has a body), one colour per Gaussian instead of spherical
harmonics (with one static camera there is no view dependence to learn), the triangle frame, which stretches with its
triangle, and a fixed number of Gaussians. Perceptual losses are left out throughout.

Figures are those of the released code of the papers that each function names.
"""

from __future__ import annotations

from collections.abc import Callable

from being_rt.errors import InvalidParameterError
from being_rt.train.config import (
    FeedConfig,
    LearningRates,
    LossConfig,
    ModelConfig,
    RegularisationConfig,
    ScheduleConfig,
    TrackConfig,
    TrainConfig,
)

_HARMONIC = 0.28209479  # of degree 0: a colour is 0.5 + 0.282 f, so rates of f are rates of colour times this
_UNREFINED = TrackConfig(refine=False)
_UNREGULARISED = RegularisationConfig(position=0.0, scale=0.0, offset=0.0, noise=0.0, regional=False)


def preset(name: str) -> TrainConfig:
    """The configuration of a preset: one of :data:`PRESETS`.

    Raises:
        InvalidParameterError: an unknown name.

    Example::

        config = dataclasses.replace(preset("rgbavatar"), seed=1)
    """
    if name not in PRESETS:
        raise InvalidParameterError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]()


def being() -> TrainConfig:
    """Anchor-latent blended Gaussians: offsets of all attributes, local in space, of low rank."""
    return TrainConfig()


def rgbavatar() -> TrainConfig:
    """Li et al., "RGBAvatar: Reduced Gaussian blendshapes for online modeling of head avatars", CVPR 2025.

    One set of 20 weights for the whole head; blendshapes of position, rotation and colour; L1 alone. Theirs samples UV
    space at 256 x 256 (58,515 Gaussians), and its network also sees the head's rotation and translation.
    """
    colour = 0.0125 * _HARMONIC
    return TrainConfig(
        model=ModelConfig(
            preset="rgbavatar",
            head_gaussians=58_515,
            hair_gaussians=0,
            mouth_gaussians=0,
            anchors=1,
            rank=20,
            channels=("position", "rotation", "colour"),
            trunk_sizes=(128, 128),
            code_size=1,
            anchor_size=0,
            antialiased=False,
            facing_fade=False,
            network_start=0.06,
            densification="none",
            learning_rates=LearningRates(
                position=8e-4,
                position_end=8e-6,
                position_until=0.6,
                end=1.0,
                rotation=5e-3,
                log_scale=2.5e-2,
                opacity=0.25,
                colour=colour,
                network=1e-3,
                basis=0.5 * colour,
                basis_position=0.05 * 8e-4 / (0.5 * colour),
                basis_rotation=0.5 * 5e-3 / (0.5 * colour),
            ),
            regularisation=_UNREGULARISED,
        ),
        loss=LossConfig(l1=1.0, dssim=0.0, alpha=0.0, mouth=1.0, eyes=1.0),
        schedule=ScheduleConfig(steps=5_000, batch=10, visits=0, relocate_interval=0),
        tracks=_UNREFINED,
    )


def splattingavatar() -> TrainConfig:
    """Shao et al., "SplattingAvatar: Realistic real-time human avatars with mesh-embedded Gaussian splatting", 2024.

    Rigid: points that walk over the mesh and stand off along its normal; adaptive density from 10,000 Gaussians. Theirs
    interpolates normals and rotations between vertices, grows without bound (half a million Gaussians) and is trained
    with 10 times the mean square error, which is 20 times a Huber loss below its threshold.
    """
    count = 150_000
    return TrainConfig(
        model=ModelConfig(
            preset="splattingavatar",
            head_gaussians=count,
            hair_gaussians=0,
            mouth_gaussians=0,
            network="none",
            placement="normal",
            antialiased=False,
            facing_fade=False,
            initial_opacity=0.1,
            densification="adaptive",
            initial_share=10_000 / count,
            learning_rates=LearningRates(
                position=4e-5,  # theirs is 1.6e-4 on a head four times as large
                position_end=4e-7,
                end=1.0,
                rotation=1e-3,
                log_scale=5e-3,
                opacity=5e-2,
                colour=2.5e-3 * _HARMONIC,
                barycentric=1.6e-4,
            ),
            regularisation=RegularisationConfig(
                position=0.0, scale=1.0, scale_limit=0.002, ratio_limit=10.0, offset=0.0, noise=0.0, regional=False
            ),
        ),
        loss=LossConfig(l1=20.0, dssim=0.0, alpha=0.0, huber=1.0, mouth=1.0, eyes=1.0),
        schedule=ScheduleConfig(
            steps=30_000, batch=1, visits=0, relocate_start=0.02, relocate_stop=0.967, relocate_interval=100
        ),
        tracks=_UNREFINED,
    )


def gaussianavatars() -> TrainConfig:
    """Qian et al., "GaussianAvatars: Photorealistic head avatars with rigged 3D Gaussians", CVPR 2024.

    Rigid, in units of the triangle; one Gaussian per triangle at first, adaptive density; tracks are refined. Theirs
    has rows of teeth in the mesh, for which the Gaussians of the mouth stand here.
    """
    count = 100_000
    return TrainConfig(
        model=ModelConfig(
            preset="gaussianavatars",
            head_gaussians=count,
            hair_gaussians=0,
            mouth_gaussians=168,
            network="none",
            face_scaled=True,
            antialiased=False,
            facing_fade=False,
            initial_opacity=0.1,
            densification="adaptive",
            initial_share=9_976 / count,
            learning_rates=LearningRates(
                position=5e-3,
                position_end=5e-5,
                end=1.0,
                rotation=1e-3,
                log_scale=1.7e-2,
                opacity=5e-2,
                colour=2.5e-3 * _HARMONIC,
            ),
            regularisation=RegularisationConfig(
                position=0.01,
                position_limit=1.0,
                scale=0.6,  # their hinge is not relative to its limit of 0.6
                scale_limit=0.6,
                ratio_limit=1e6,
                offset=0.0,
                noise=0.0,
                regional=False,
            ),
        ),
        loss=LossConfig(l1=0.8, dssim=0.2, alpha=0.0, mouth=1.0, eyes=1.0),
        schedule=ScheduleConfig(
            steps=600_000, batch=1, visits=0, relocate_start=0.0167, relocate_stop=1.0, relocate_interval=2_000
        ),
        tracks=TrackConfig(
            refine=True,
            expression=1e-3,
            rotation=1e-5,
            neck=1e-5,
            jaw=1e-5,
            eyes=1e-5,
            eyelids=0.0,
            translation=1e-6,
            start=0.0,
            end=0.1,
            smoothness=0.0,
            closeness=0.0,
            slow_seconds=0.0,
            steady_seconds=0.0,
        ),
    )


def flashavatar() -> TrainConfig:
    """Xiang et al., "FlashAvatar: High-fidelity head avatar with efficient Gaussian embedding", CVPR 2024.

    A network per Gaussian moves, turns and scales it; where it stands at rest is fixed. Huber loss with the mouth
    weighed 40 times. Theirs samples UV space at 128 x 128 (13,453 Gaussians) and closes the mouth with 30 triangles
    (140 Gaussians), for which those of the mouth stand here.
    """
    return TrainConfig(
        model=ModelConfig(
            preset="flashavatar",
            head_gaussians=13_453,
            hair_gaussians=0,
            mouth_gaussians=140,
            network="points",
            channels=("position", "rotation", "scale"),
            point_sizes=(256,) * 6,
            network_start=0.0,
            antialiased=False,
            facing_fade=False,
            densification="none",
            learning_rates=LearningRates(
                position=0.0,
                position_end=0.0,
                end=1.0,
                rotation=1e-3,
                log_scale=5e-3,
                opacity=5e-2,
                colour=2.5e-3 * _HARMONIC,
                network=1e-4,
            ),
            regularisation=_UNREGULARISED,
        ),
        loss=LossConfig(l1=1.0, dssim=0.0, alpha=0.0, huber=0.1, mouth=41.0, eyes=1.0),
        schedule=ScheduleConfig(steps=150_000, batch=1, visits=0, relocate_interval=0),
        feed=FeedConfig(random_background=False),
        tracks=_UNREFINED,
    )


PRESETS: dict[str, Callable[[], TrainConfig]] = {
    "being": being,
    "rgbavatar": rgbavatar,
    "splattingavatar": splattingavatar,
    "gaussianavatars": gaussianavatars,
    "flashavatar": flashavatar,
}
