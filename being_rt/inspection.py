"""What is in a file, as a flat table of facts, for ``being info``. Reads with the package's own strict loaders."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from being_rt.avatar.file import inspect_avatar, load_avatar
from being_rt.errors import FileFormatError
from being_rt.files import read_error_reason
from being_rt.flame.loader import load_flame_model
from being_rt.flame.model import FlameModel
from being_rt.flame.params import WIDTHS, FlameParams

Facts = dict[str, Any]


def inspect_file(path: str | os.PathLike[str]) -> Facts:
    """Facts about an avatar, a FLAME model or a motion file: name -> text or number. The first one is ``kind``.

    Raises ``FileFormatError`` (or one of its children) for a file that is missing, damaged or of no known kind.

    Example::

        inspect_file("ada.being")["Gaussians"]
    """
    file = Path(path)
    try:
        members = set(zipfile.ZipFile(file).namelist()) if zipfile.is_zipfile(file) else set()
        size = file.stat().st_size
    except FileNotFoundError as problem:
        raise FileFormatError(f"{file} does not exist") from problem
    except (OSError, zipfile.BadZipFile) as problem:
        reason = read_error_reason(problem) if isinstance(problem, OSError) else "it is damaged"
        raise FileFormatError(f"cannot read {file}: {reason}") from problem
    if "manifest.json" in members or file.suffix.lower() == ".being":
        facts = describe_avatar(file)
    elif {f"{name}.npy" for name in WIDTHS} <= members:
        facts = describe_motion(FlameParams.load(file))
    elif members or file.suffix.lower() in (".pkl", ".npz"):
        facts = describe_model(load_flame_model(file))
    else:
        raise FileFormatError(
            f"{file} is neither an avatar (.being), nor a FLAME model (.pkl, .npz), nor a motion (.npz)"
        )
    return {**facts, "file size": f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"}


def describe_avatar(path: Path) -> Facts:
    """Facts about an avatar file, in the order that a reader wants them. It is loaded too, so damage does not pass."""
    avatar, summary = load_avatar(path), inspect_avatar(path)
    field_of_view = 2 * np.degrees(np.arctan(0.5 * avatar.camera.size[1] / float(avatar.camera.intrinsics[1, 1])))
    network = f"{summary.network_count} Gaussians, rank {summary.network_rank}, {summary.anchor_count} anchors"
    return {
        "kind": "avatar",
        "name": summary.name,
        "licence": summary.licence or "not stated",
        "consent": summary.consent or "not stated",
        "FLAME edition": summary.edition,
        "Gaussians": summary.head_count + summary.torso_count,
        "of the head": summary.head_count,
        "of the torso": summary.torso_count,
        "offset network": network if summary.network_count else "none (rigid)",
        "mesh": f"{summary.vertex_count} vertices, {summary.face_count} triangles",
        "named expressions": len(summary.expressions),
        "landmarks": ", ".join(summary.landmarks) or "none",
        "camera": f"{summary.size[0]}x{summary.size[1]}, {field_of_view:.1f} degrees vertically",
        "format version": summary.format_version,
        "written by": summary.generator,
        **summary.metadata,
    }


def describe_model(model: FlameModel) -> Facts:
    """Facts about a FLAME model."""
    size = np.ptp(model.template, axis=0)
    return {
        "kind": "FLAME model",
        "edition": model.edition,
        "mesh": f"{model.vertex_count} vertices, {model.face_count} triangles",
        "bases": f"{model.shape_basis.shape[2]} shape, {model.expression_basis.shape[2]} expression, "
        f"{model.pose_basis.shape[2]} pose",
        "extent": f"{size[0]:.3f} x {size[1]:.3f} x {size[2]:.3f} m",
        "eyelids": "yes" if model.eyelid_basis.any() else "no",
        "texture coordinates": "yes" if model.uv is not None else "no",
        "regions": ", ".join(model.regions) or "none",
        "landmarks": ", ".join(model.landmarks) or "none",
        "named expressions": len(model.expression_map.names) if model.expression_map else 0,
    }


def describe_motion(params: FlameParams) -> Facts:
    """Facts about a motion."""
    used = [name for name in WIDTHS if getattr(params, name).any()]
    return {
        "kind": "motion (FlameParams)",
        "frames": len(params),
        "fps": params.fps,
        "duration": f"{params.duration:.2f} s",
        "moving": ", ".join(used) or "nothing",
        "widest jaw opening": f"{float(params.jaw[:, 0].max()):.3f} rad",
    }
