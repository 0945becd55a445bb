"""How operations are registered: what they import, and that there are no second derivatives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from being_rt.ops.compositing import over

STEP = """
import sys, torch
from being_rt.ops.compositing import over
layer = torch.rand(1, 4, 4, 5, requires_grad=True)
over(layer, torch.rand(1, 1, 1, 3)).sum().backward()
assert layer.grad is not None
print(sorted(name for name in sys.modules if name in ("torch._dynamo", "torch._inductor")))
"""


def test_a_step_imports_no_compiler(tmp_path: Path) -> None:
    """Nothing here uses it, and it takes seconds to import."""
    command = [sys.executable, "-c", STEP]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)  # not beside the sources
    assert (run.stdout.strip(), run.stderr) == ("[]", "")


def test_there_are_no_second_derivatives() -> None:
    layer = torch.rand(1, 4, 4, 5, requires_grad=True)
    loss = over(layer, torch.rand(1, 1, 1, 3)).square().sum()
    gradient = torch.autograd.grad(loss, layer, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="over_backward has no derivative"):
        gradient.sum().backward()


def test_called_by_name_as_by_place() -> None:
    layer, background = torch.rand(1, 4, 4, 5), torch.rand(1, 1, 1, 3)
    expected = over(layer, background)
    assert torch.equal(torch.ops.being_rt.over(layer=layer, background=background), expected)
