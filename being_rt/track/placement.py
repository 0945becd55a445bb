"""Where a tracked person is put in the world: at the origin, looking forwards, as every driver expects.

A tracker finds heads in front of its camera. Avatars are driven by motions about the origin that look along +Z, so the
world is turned and moved until that is what the person does on average; the camera goes along, and no pixel changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices, matrix_axis_angles, nearest_rotations


def centred(
    params: FlameParams, camera: Camera, rig: Rig, chosen: NDArray[np.bool_] | None = None
) -> tuple[FlameParams, Camera]:
    """The same motion before the same camera, in a world where its mean head is upright at the origin.

    FLAME takes x to ``R (x - J) + J + t`` with J the global joint. In a world ``x' = A x + b`` that is
    ``R' = A R`` and ``t' = A (J + t) + b - J``; A and b are chosen so that the mean of R' is the identity and that of
    t' is zero.

    Args:
        params: T frames.
        camera: that sees them.
        rig: the person's, whose joints move with the expression.
        chosen: [T] which frames the means are of; None: all.

    Example::

        params, camera = centred(fit.params, fit.camera, rig, fit.tracked)
    """
    counted = np.ones(len(params), bool) if chosen is None else chosen
    turned = matrices(params.rotation)
    joint = rig.joint_rest[0] + params.expression.astype(np.float64) @ rig.joint_expression[0].T
    turn = nearest_rotations(turned[counted].mean(0)).T
    moved = (joint + params.translation) @ turn.T - joint
    shift = -moved[counted].mean(0)
    world = np.eye(4)  # from the new one to the old one: x = A^T (x' - b)
    world[:3, :3], world[:3, 3] = turn.T, -turn.T @ shift
    pose = camera.world_to_camera.astype(np.float64) @ world
    return (
        params.replace(rotation=matrix_axis_angles(turn @ turned), translation=moved + shift),
        Camera(pose.astype(np.float32), camera.intrinsics, camera.size),
    )
