"""The global joint, elsewhere: a base of the neck of one's own, and the same motion of the mesh about it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from being_rt.flame.params import FlameParams
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices


def with_global_joint(rig: Rig, params: FlameParams, joint: ArrayLike) -> tuple[Rig, FlameParams]:
    """The same person and motion with the global joint at ``joint`` [3], metres, of the rest pose.

    FLAME takes the mesh to ``R (x - J) + J + t``, with J the global joint and x what the other joints have made of it.
    With another joint J' that is the same mesh if ``t' = t + (I - R) (J - J')``. What differs is the translation: where
    the body is, which does not turn. J moves with the expression, by the same as before.

    Example::

        rig, params = with_global_joint(rig, params, rig.joint_rest[0] - [0, 0, 0.05])
    """
    place = np.asarray(joint, np.float64)
    shift = rig.joint_rest[0].astype(np.float64) - place
    turned = matrices(params.rotation).astype(np.float64) @ shift
    joints = rig.joint_rest.copy()
    joints[0] = place
    moved = params.translation.astype(np.float64) + shift - turned
    return replace(rig, joint_rest=joints), params.replace(translation=moved)
