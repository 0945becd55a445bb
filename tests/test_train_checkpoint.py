"""Checkpoints: the same bits back, nothing half-written, and one line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from being_rt.errors import CheckpointError, UnsupportedVersionError
from being_rt.train import checkpoint as module
from being_rt.train.checkpoint import check_disk_space, copy_into, load_checkpoint, save_checkpoint

TENSORS = {"a": torch.tensor([[1.5, float("nan")]]), "b.c": torch.arange(3), "d": torch.tensor([True])}


def test_everything_comes_back(tmp_path: Path) -> None:
    state = {"step": 12, "progress": 0.1 + 0.2, "names": ["x"], "none": None}
    save_checkpoint(tmp_path / "run.safetensors", TENSORS, state)
    loaded = load_checkpoint(tmp_path / "run.safetensors")
    assert {name: value for name, value in loaded.state.items() if name != "format_version"} == state
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name].nan_to_num(7), tensor.nan_to_num(7))
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    with pytest.raises(CheckpointError, match=r"run\.safetensors does not exist"):
        load_checkpoint(path)
    path.write_bytes(b"\x05")
    with pytest.raises(CheckpointError, match="not a checkpoint, or damaged"):
        load_checkpoint(path)
    from safetensors.torch import save_file

    save_file(TENSORS, path)
    with pytest.raises(CheckpointError, match="no training state"):
        load_checkpoint(path)
    monkeypatch.setattr(module, "FORMAT_VERSION", 2)
    save_checkpoint(path, TENSORS, {})
    monkeypatch.setattr(module, "FORMAT_VERSION", 1)
    with pytest.raises(UnsupportedVersionError, match="checkpoint format 2"):
        load_checkpoint(path)


def test_a_failed_write_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, TENSORS, {"step": 1})
    with pytest.raises(CheckpointError, match="the folder does not exist"):
        save_checkpoint(tmp_path / "none" / "run.safetensors", TENSORS, {})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(CheckpointError, match="the disk is full"):
        save_checkpoint(path, TENSORS, {"step": 2})
    monkeypatch.undo()
    assert load_checkpoint(path).state["step"] == 1


def test_tensors_of_another_model_are_refused() -> None:
    target = {"a": torch.zeros(2)}
    copy_into(target, {"a": torch.ones(2), "more": torch.ones(1)}, "x")
    assert target["a"].tolist() == [1, 1]
    for saved in ({}, {"a": torch.ones(3)}, {"a": torch.ones(2).double()}):
        with pytest.raises(CheckpointError, match=r"x does not fit: a must be float32 \[2\]"):
            copy_into(target, saved, "x")


def test_disk_space_is_checked(tmp_path: Path) -> None:
    check_disk_space(tmp_path, TENSORS, 1000)
    with pytest.raises(CheckpointError, match=r"training needs 1000000000\.00 GB there"):
        check_disk_space(tmp_path, TENSORS, 10**18)
    with pytest.raises(CheckpointError, match="cannot write to"):
        check_disk_space(tmp_path / "none", TENSORS, 0)
