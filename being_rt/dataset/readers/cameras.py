"""Cameras of other programs in ours: OpenCV axes, pixels, one that stands still while the head moves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from being_rt.avatar.avatar import Camera
from being_rt.errors import DatasetError
from being_rt.flame.rig import Rig
from being_rt.flame.rotations import matrices, matrix_axis_angles, nearest_rotations

Float64 = NDArray[np.float64]

# OpenGL's camera looks along -Z with Y up, OpenCV's along +Z with Y down; PyTorch3D's along +Z with X left and Y up.
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
PYTORCH3D_TO_OPENCV = np.diag([-1.0, -1.0, 1.0, 1.0])
_FARTHEST = 1e7  # metres or pixels; float32 has no tenth of a pixel beyond
_STILL = 1e-5  # metres, and about radians: below, a camera stands


def rigid(matrix: Any, where: str, tolerance: float = 1e-2) -> Float64:
    """A pose [3 or 4, 4] as [4, 4] with a rotation that is exactly one.

    Raises:
        DatasetError: it is not a rotation within the tolerance, or a mirror image.
    """
    pose = np.eye(4)
    given = np.asarray(matrix, np.float64)
    pose[:3] = given[:3]
    if not np.abs(pose).max() < _FARTHEST:
        raise DatasetError(f"{where} has a camera that is not finite, or farther away than anything; track it again")
    rotation = pose[:3, :3]
    if np.linalg.det(rotation) < 0:
        raise DatasetError(f"{where} has a camera that mirrors (determinant -1): an axis is flipped")
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > tolerance:
        raise DatasetError(f"{where} has a camera whose axes are not orthonormal: it holds a scale or a projection")
    pose[:3, :3] = nearest_rotations(rotation)
    return pose


def pinhole(focal_x: float, focal_y: float, centre_x: float, centre_y: float, where: str) -> Float64:
    """Intrinsics [3, 3] in pixels. Raises ``DatasetError`` where they cannot be."""
    numbers = np.array([focal_x, focal_y, centre_x, centre_y])
    if not np.abs(numbers).max() < _FARTHEST or min(focal_x, focal_y) <= 0:
        raise DatasetError(f"{where} has impossible intrinsics: focal lengths {focal_x}, {focal_y}")
    return np.array([[focal_x, 0, centre_x], [0, focal_y, centre_y], [0, 0, 1]])


def from_ndc(focal: Float64, principal: Float64, size: tuple[int, int], where: str) -> Float64:
    """Intrinsics in pixels of a PyTorch3D camera in normalised device coordinates.

    There the shorter side spans -1..1 and X points left, Y up: pytorch3d.org, "Cameras", NDC coordinate system.
    """
    half = min(size) / 2
    focal = np.broadcast_to(focal, (2,)) * half
    centre = np.array(size) / 2 - principal * half
    return pinhole(focal[0], focal[1], centre[0], centre[1], where)


def common_intrinsics(intrinsics: Float64, names: list[str]) -> Float64:
    """The one matrix of frames [n, 3, 3]. Raises ``DatasetError`` where it changes: a camera does not zoom here."""
    middle = np.median(intrinsics, axis=0)
    off = np.abs(intrinsics - middle).max((1, 2)) > 1e-4 * middle[0, 0]
    if off.any():
        where = names[int(np.argmax(off))]
        raise DatasetError(f"{where}: its intrinsics differ from other frames'; a data set needs a fixed focal length")
    return middle


def still_camera(poses: Float64) -> Float64 | None:
    """The pose [4, 4] of a camera that stands still in all frames [n, 4, 4]; None where it moves."""
    return poses[0] if np.abs(poses - poses[0]).max() <= _STILL else None


def hold_camera(poses: Float64, rig: Rig, params: dict[str, Float64]) -> tuple[Float64, dict[str, Float64]]:
    """Let the head move instead of the camera.

    With E_i the camera of frame i and E the still one, every point must move by M_i = E^-1 E_i. FLAME's own global
    motion is v = R (u - J) + J + t about its first joint J, which the expression moves a little; so that of M_i v has
    R' = R_M R and t' = R_M (J + t) + t_M - J. The still camera is the mean of all: the head then turns about its rest.

    Args:
        poses: [T, 4, 4], one of every timestep.
        params: fields [T, n] of the tracks, float64.

    Returns:
        world_to_camera [4, 4], and the fields with ``rotation`` and ``translation`` replaced.
    """
    still = np.eye(4)
    still[:3, :3] = nearest_rotations(poses[:, :3, :3].mean(0))
    still[:3, 3] = poses[:, :3, 3].mean(0)
    motion = np.linalg.inv(still) @ poses
    joint = rig.joint_rest[0].astype(np.float64) + params["expression"] @ rig.joint_expression[0].astype(np.float64).T
    turned = motion[:, :3, :3] @ matrices(params["rotation"])
    moved = np.einsum("tij,tj->ti", motion[:, :3, :3], joint + params["translation"]) + motion[:, :3, 3] - joint
    return still, {**params, "rotation": matrix_axis_angles(turned), "translation": moved}


def camera_of(pose: Float64, intrinsics: Float64, size: tuple[int, int]) -> Camera:
    """The record of a camera."""
    return Camera(pose.astype(np.float32), intrinsics.astype(np.float32), size)
