"""The same person in more or fewer Gaussians, so that speed can be measured against their number alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import AnchorLatentNetwork, Avatar, Gaussians, HeadLayer, Seam
from being_rt.errors import InvalidParameterError
from being_rt.flame.rotations import quaternion_matrices

Int = NDArray[np.int64]

# One Gaussian of opacity o becomes two, OFFSET of its longest standard deviation to either side along that axis. The
# factors on the longest axis and on the other two, and the opacity of each, minimise the squared error of
# 1 - (1 - a1)(1 - a2) against the parent's alpha over the plane: error 0.002 rms at o = 0.3, 0.02 at o = 0.99.
OFFSET = 0.5
_OPACITY = np.array([0.0, 0.02, 0.10, 0.30, 0.50, 0.70, 0.90, 0.97, 1.00])
_ALONG = np.array([0.84, 0.84, 0.82, 0.82, 0.80, 0.78, 0.76, 0.76, 0.76])
_ACROSS = np.array([1.00, 1.00, 1.00, 1.00, 0.97, 0.97, 0.94, 0.94, 0.94])
_CHILD_OPACITY = np.array([0.0, 0.0118, 0.061, 0.189, 0.335, 0.497, 0.693, 0.754, 0.777])


def with_count(avatar: Avatar, count: int) -> Avatar:
    """The avatar with ``count`` Gaussians in all, head and torso in their old proportion.

    More: the largest are split in two until there are enough; the picture stays the same to the eye. Fewer: a fixed
    random choice remains, enlarged to cover the same area; the picture gets coarser. Deterministic.

    Raises ``InvalidParameterError`` below 100 Gaussians or above ten million.

    Example::

        dense = with_count(demo_avatar("ada"), 300_000)
    """
    if not 100 <= count <= 10_000_000:
        raise InvalidParameterError(f"count must be 100..10000000 Gaussians, got {count}")
    head, torso = avatar.head, avatar.torso
    share = head.gaussians.count / (head.gaussians.count + torso.gaussians.count)
    head_count = round(count * share)
    networked = 0 if avatar.network is None else avatar.network.count

    head_gaussians, head_parent = _resized(head.gaussians, head_count)
    order = np.argsort(head_parent >= networked, kind="stable")  # those with offset bases come first
    head_gaussians, head_parent = _take(head_gaussians, order), head_parent[order]
    torso_gaussians, torso_parent = _resized(torso.gaussians, count - head_count)
    return replace(
        avatar,
        head=HeadLayer(head_gaussians, head.face[head_parent], head.barycentric[head_parent]),
        torso=replace(torso, gaussians=torso_gaussians, weights=torso.weights[torso_parent]),
        network=_take_network(avatar.network, head_parent[head_parent < networked]),
        seam=_remap_seam(avatar.seam, head_parent, torso_parent, torso.gaussians.count),
    )


def _resized(gaussians: Gaussians, count: int) -> tuple[Gaussians, Int]:
    """``count`` Gaussians and which of the old ones each descends from."""
    if count <= gaussians.count:
        kept = np.sort(np.random.default_rng(0).permutation(gaussians.count)[:count])
        growth = 0.5 * np.log(gaussians.count / max(count, 1))  # the area covered stays: scale as 1 / sqrt(count)
        fewer = _take(gaussians, kept)
        return replace(fewer, log_scale=(fewer.log_scale + growth).astype(np.float32)), kept
    parent = np.arange(gaussians.count)
    while gaussians.count < count:
        largest = np.argsort(-gaussians.log_scale.max(1), kind="stable")[: count - gaussians.count]
        gaussians, grandparent = _split(gaussians, np.sort(largest))
        parent = parent[grandparent]
    return gaussians, parent


def _split(gaussians: Gaussians, chosen: Int) -> tuple[Gaussians, Int]:
    """Each of ``chosen`` in two: one in its old place in the list, the other at the end."""
    parent = np.concatenate([np.arange(gaussians.count), chosen])
    side = np.zeros(len(parent))
    side[chosen], side[gaussians.count :] = -OFFSET, OFFSET
    divided = side != 0

    result = _take(gaussians, parent)
    longest = result.log_scale.argmax(1)
    axis = quaternion_matrices(result.rotation)[np.arange(len(parent)), :, longest]  # where it points
    length = np.exp(result.log_scale[np.arange(len(parent)), longest])
    position = result.position + (side * length)[:, None] * axis

    opacity = 1 / (1 + np.exp(-result.opacity_logit.astype(np.float64)))
    factor = np.repeat(np.interp(opacity, _OPACITY, _ACROSS)[:, None], 3, axis=1)
    factor[np.arange(len(parent)), longest] = np.interp(opacity, _OPACITY, _ALONG)
    child = np.clip(np.interp(opacity, _OPACITY, _CHILD_OPACITY), 1e-6, 1 - 1e-6)
    return (
        replace(
            result,
            position=position.astype(np.float32),
            log_scale=np.where(divided[:, None], result.log_scale + np.log(factor), result.log_scale).astype(
                np.float32
            ),
            opacity_logit=np.where(divided, np.log(child / (1 - child)), result.opacity_logit).astype(np.float32),
        ),
        parent,
    )


def _take(gaussians: Gaussians, index: Int) -> Gaussians:
    return Gaussians(**{name: np.ascontiguousarray(value[index]) for name, value in vars(gaussians).items()})


def _take_network(network: AnchorLatentNetwork | None, index: Int) -> AnchorLatentNetwork | None:
    if network is None:
        return None
    return replace(
        network,
        anchor_index=network.anchor_index[index],
        anchor_weight=network.anchor_weight[index],
        basis=network.basis[index],
    )


def _remap_seam(seam: Seam, head_parent: Int, torso_parent: Int, torso_count: int) -> Seam:
    """The bands of the seam: every descendant of a member is one, with its weight."""
    torso_band = np.flatnonzero(np.isin(torso_parent, seam.torso_band))
    weight = np.zeros(torso_count, np.float32)
    weight[seam.torso_band] = seam.torso_band_weight
    return replace(
        seam,
        head_band=np.flatnonzero(np.isin(head_parent, seam.head_band)).astype(np.int32),
        torso_band=torso_band.astype(np.int32),
        torso_band_weight=weight[torso_parent[torso_band]],
    )
