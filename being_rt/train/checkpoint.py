"""A run's state in a file: tensors as safetensors, the rest as JSON in its header. Nothing is pickled."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from being_rt.errors import CheckpointError, UnsupportedVersionError
from being_rt.files import atomic_write, os_error_reason, reading

FORMAT_VERSION = 1
_HEAD = "being_rt"  # key of the JSON in safetensors' metadata
SPARE = 1.1  # of what a checkpoint takes must be free on the disk, and once more for the file that it replaces


class Checkpoint(NamedTuple):
    """What a run needs to go on as if nothing had happened."""

    tensors: dict[str, Tensor]  # on the CPU
    state: dict[str, Any]  # what JSON holds


def save_checkpoint(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write a checkpoint: all of it, on the disk, or nothing.

    Raises:
        CheckpointError: it cannot be written.
    """
    from safetensors.torch import save_file

    host = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps({"format_version": FORMAT_VERSION, **state}, allow_nan=True)
    with atomic_write(path, CheckpointError) as temporary:
        try:
            save_file(host, temporary, {_HEAD: text})
        except OSError:
            raise
        except Exception as problem:  # safetensors reports a full disk as an error of its own
            raise CheckpointError(f"cannot write {path}: {str(problem).splitlines()[0]}") from problem


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read what :func:`save_checkpoint` wrote. Nothing in the file is executed.

    Raises:
        CheckpointError: missing, damaged, or not a checkpoint.
        UnsupportedVersionError: written by a newer being_rt.
    """
    from safetensors import safe_open

    with reading(path, "a checkpoint", CheckpointError), safe_open(Path(path), "pt") as file:
        state = json.loads((file.metadata() or {}).get(_HEAD, "null"))
        if not isinstance(state, dict) or not isinstance(state.get("format_version"), int):
            raise ValueError("it has no training state")
        if state["format_version"] > FORMAT_VERSION:
            raise UnsupportedVersionError(
                f"{path} has checkpoint format {state['format_version']}, this being_rt reads up to {FORMAT_VERSION}; "
                "update being_rt"
            )
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return Checkpoint(tensors, state)


def copy_into(tensors: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Fill tensors, in place, with the saved ones of the same names.

    Raises:
        CheckpointError: one is missing or has another shape or type: the checkpoint is of another model.
    """
    for name, tensor in tensors.items():
        other = saved.get(name)
        if other is None or other.shape != tensor.shape or other.dtype != tensor.dtype:
            found = "nothing" if other is None else f"{str(other.dtype)[6:]} {list(other.shape)}"
            raise CheckpointError(
                f"{path} does not fit: {name} must be {str(tensor.dtype)[6:]} {list(tensor.shape)}, it has {found}"
            )
        with torch.no_grad():
            tensor.copy_(other)


def check_disk_space(folder: Path, tensors: Mapping[str, Tensor], beside: int) -> None:
    """Check, at the start of a run, that its checkpoints and its result will fit.

    Args:
        folder: where they go; it exists.
        tensors: what a checkpoint holds.
        beside: bytes of everything else that the run writes.

    Raises:
        CheckpointError: they will not.
    """
    needed = int(2 * SPARE * sum(tensor.nbytes for tensor in tensors.values())) + beside
    try:
        free = shutil.disk_usage(folder).free
    except OSError as problem:
        raise CheckpointError(f"cannot write to {folder}: {os_error_reason(problem)}") from problem
    if free < needed:
        raise CheckpointError(
            f"cannot write to {folder}: training needs {needed / 1e9:.2f} GB there, {free / 1e9:.2f} GB are free; "
            "free some space or choose another folder"
        )
