"""What an avatar is: the rig with its identity baked in, the Gaussian layers, the offset network, the background."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from being_rt.flame.rig import Rig

Float16 = NDArray[np.float16]
Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
UInt8 = NDArray[np.uint8]
UInt16 = NDArray[np.uint16]
Bool = NDArray[np.bool_]

MOTIONS = 9  # of a head that its body answers: translation 3, axis angles of the global joint 3 and of the neck 3
CHANNELS = 13  # position 3, rotation vector 3, log scale 3, opacity logit 1, colour 3


@dataclass(frozen=True)
class Gaussians:
    """Attributes that every layer has. N Gaussians; stored scales are log metres, stored opacities logits."""

    position: Float32  # [N, 3] metres: head: in the frame of its triangle; torso: rest pose, FLAME space
    rotation: Float32  # [N, 4] w, x, y, z; local +Z is the outward normal where facing_fade is set
    log_scale: Float32  # [N, 3]
    opacity_logit: Float32  # [N]
    colour: Float32  # [N, 3] sRGB 0..1, blended in that space
    facing_fade: Bool  # [N] opacity fades to 0 as the Gaussian's normal turns away from the camera

    @property
    def count(self) -> int:
        return int(self.position.shape[0])


@dataclass(frozen=True)
class HeadLayer:
    """Gaussians bound to triangles of the skinned mesh. The first ``network.count`` of them have offset bases."""

    gaussians: Gaussians
    face: Int32  # [N]
    barycentric: Float32  # [N, 3]


@dataclass(frozen=True)
class TorsoLayer:
    """Gaussians skinned to three frames: 0 the root, 1 the global joint, 2 the neck joint.

    The root does not turn. It is moved by the translation, and by the body's response to the motion: a chest that leans
    does not go as one piece, and neither joint lies in it. ``A_root = I + sum_i f_i G_i``, where f are the nine numbers
    of translation, global rotation and neck rotation, kept within ``response_range`` and counted from its middle.
    """

    gaussians: Gaussians
    weights: Float32  # [N, 3], rows sum to 1
    response: Float32 = field(default_factory=lambda: np.zeros((MOTIONS, 3, 4), np.float32))  # G: metres, radians
    response_range: Float32 = field(default_factory=lambda: np.zeros((2, MOTIONS), np.float32))  # lowest, highest


@dataclass(frozen=True)
class AnchorLatentNetwork:
    """Anchor-latent blended Gaussians (ALG): ``a_i = b_i + B_i z_i``, ``z_i = sum_k w_ik Z_k(theta)``.

    theta [138] = expression 100, jaw R-I 9, left eye R-I 9, right eye R-I 9, eyelids 2, neck R-I 9 (R row-major).
    h = relu(W1 relu(W0 theta + b0) + b1); Z_k = V1 relu(V0 [h, code_k] + c0) + c1.
    """

    trunk_weight_0: Float32  # [H0, 138]
    trunk_bias_0: Float32  # [H0]
    trunk_weight_1: Float32  # [H1, H0]
    trunk_bias_1: Float32  # [H1]
    anchor_code: Float32  # [M, C]
    head_weight_0: Float32  # [H2, H1 + C]
    head_bias_0: Float32  # [H2]
    head_weight_1: Float32  # [K, H2]
    head_bias_1: Float32  # [K]
    anchor_index: UInt16  # [n, 4] of head Gaussians 0..n-1
    anchor_weight: Float32  # [n, 4], rows sum to 1
    basis: Float16  # [n, 13, K], channel order as CHANNELS

    @property
    def count(self) -> int:
        return int(self.basis.shape[0])

    @property
    def rank(self) -> int:
        return int(self.basis.shape[2])


@dataclass(frozen=True)
class Seam:
    """Where head and torso meet: a ring around the neck, how wide the blend is. See docs/architecture.md, composite.

    The ring rides on the mean of the global and the neck joint's transforms.
    """

    centre: Float32  # [3] metres, rest pose, FLAME space
    axis: Float32  # [3] unit, rest pose, along the neck, upwards
    radius: float  # metres, of the ring; 0: no gaps are filled
    half_height: float  # metres, half height of the band along the axis
    depth_softness: float  # metres of depth difference over which head and torso swap order
    head_band: Int32  # indices of head Gaussians whose colour the torso is matched to
    torso_band: Int32  # indices of torso Gaussians that are matched
    torso_band_weight: Float32  # [len(torso_band)] 0..1, how much of the match each one takes


@dataclass(frozen=True)
class Camera:
    """Pinhole camera, OpenCV axes (x right, y down, z forward); pixel centres at +0.5."""

    world_to_camera: Float32  # [4, 4]
    intrinsics: Float32  # [3, 3] in pixels of size
    size: tuple[int, int]  # width, height

    def resized(self, size: tuple[int, int]) -> Camera:
        """The same view at another size (width, height): the vertical field of view stays.

        The principal point's offset from the picture's centre scales with the height, as the focal lengths do.
        """
        scale = size[1] / self.size[1]
        intrinsics = self.intrinsics.astype(np.float64)
        intrinsics[:2, :2] *= scale
        intrinsics[:2, 2] = np.array(size) / 2 + scale * (intrinsics[:2, 2] - np.array(self.size) / 2)
        pose = np.ascontiguousarray(self.world_to_camera, np.float32)
        return Camera(pose, intrinsics.astype(np.float32), size)


@dataclass(frozen=True)
class Avatar:
    """One person, ready to draw."""

    name: str
    rig: Rig
    head: HeadLayer
    torso: TorsoLayer
    network: AnchorLatentNetwork | None  # None: rigid binding
    seam: Seam
    camera: Camera
    background: UInt8  # [H, W, 3] sRGB, camera.size unless resized
    antialiased: bool = True  # Mip-Splatting compensation of the 0.3 px dilation (Yu et al. 2024, eq. 9)
    licence: str = ""
    consent: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
