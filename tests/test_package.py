"""The package as a whole: what importing it costs, what it promises to export, which layer may know which."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import being_rt

PACKAGE = Path(being_rt.__file__).parent
ROOT = PACKAGE.parent

# Layer by module or package, longest match wins; a file imports from its own layer and below. The same list, with
# what each layer knows, is in docs/architecture.md.
LAYERS = {
    "being_rt": 0,  # names only, loaded on first use
    "being_rt._C": 0,
    "being_rt.errors": 0,
    "being_rt.files": 0,
    "being_rt.cache": 0,
    "being_rt.checks": 0,
    "being_rt.parallel": 0,
    "being_rt.page": 0,
    "being_rt.tensor_file": 0,
    "being_rt.ops": 1,
    "being_rt.flame": 2,
    "being_rt.avatar": 2,
    "being_rt.reference": 3,
    "being_rt.cuda": 3,
    "being_rt.offset_mlp": 3,
    "being_rt.renderer": 3,
    "being_rt.audio": 4,
    "being_rt.motion": 4,
    "being_rt.video": 4,  # files and frames, nothing above
    "being_rt.dataset": 5,
    "being_rt.dataset.synth": 9,  # a job: it opens avatars and devices by name
    "being_rt.train": 6,
    "being_rt.track": 7,
    "being_rt.portrait": 8,
    "being_rt.train.__main__": 9,
    "being_rt.train_jobs": 9,
    "being_rt.jobs": 9,
    "being_rt.dataset_jobs": 9,
    "being_rt.asset_jobs": 9,
    "being_rt.record_guide": 9,
    "being_rt.clone_jobs": 9,
    "being_rt.portrait_jobs": 9,
    "being_rt.inspection": 9,
    "being_rt.doctor": 9,
    "being_rt.bench": 9,
    "being_rt.cli": 9,
}
# Nobody imports these, their own files excepted.
FRONT_ENDS = ("being_rt.cli", "being_rt.doctor", "being_rt.train.__main__")
HEAVY = ("torch", "scipy", "av", "tyro", "rich", "PIL", "safetensors")


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layer(module: str) -> int:
    known = [name for name in LAYERS if module == name or module.startswith(f"{name}.")]
    best = max(known, key=len)
    assert best != "being_rt" or module == "being_rt", f"{module} has no layer: add it to LAYERS"
    return LAYERS[best]


def imports(path: Path) -> set[str]:
    """Every module of this package that a file imports, at its top or inside a function; types alone do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    known = modules().keys() | LAYERS.keys()
    return {name for name in names if name in known}


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    for imported in imports(modules()[module]) - {"being_rt"}:
        assert layer(imported) <= layer(module), f"{module} must not import {imported}"
        if imported in FRONT_ENDS:
            assert module in FRONT_ENDS, f"{module} must not import the front end {imported}"


def test_no_relative_imports() -> None:
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: write the full name"


@pytest.mark.parametrize("statement", ["import being_rt", "from being_rt import FlameParams, Avatar"])
def test_import_is_light(statement: str, tmp_path: Path) -> None:
    code = f"import sys; {statement}; print([name for name in {HEAVY!r} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_drawing_needs_core_dependencies_alone(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys(set({HEAVY!r}) - {{'PIL', 'safetensors'}}))\n"  # None: cannot be imported
        "from being_rt import Avatar, FlameParams, Renderer, VisemeDriver, load_avatar\n"
        "from being_rt.bench import measure, report\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize("name", being_rt.__all__)
def test_public_names_exist(name: str) -> None:
    value = getattr(being_rt, name)
    assert isinstance(value, str) or value.__doc__


def test_unknown_names_do_not() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        being_rt.nonsense  # noqa: B018
    assert set(being_rt.__all__) == set(dir(being_rt))


@pytest.mark.parametrize("module", sorted(modules()))
def test_every_module_says_what_it_is(module: str) -> None:
    source = modules()[module].read_text(encoding="utf-8")
    assert not source.strip() or ast.get_docstring(ast.parse(source))
