"""`being data check` and `being data convert`, and the jobs behind them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dataset_formats import FRAMES, SIZE, truth, write_imavatar, write_insta, write_vhap

from being_rt.dataset import Dataset
from being_rt.dataset_jobs import Check, Convert, open_flame_model, read_identity
from being_rt.errors import DatasetError, InvalidParameterError, ModelFileError

pytest.importorskip("tyro")

from being_rt.cli import main

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vhap(tmp_path_factory.mktemp("source") / "306", truth(False, True))


@pytest.fixture(scope="module")
def dataset(source: Path) -> Path:
    return Convert(source, out=source.parent / "out", flame="procedural").run().path


def test_converting_and_checking_from_the_command_line(source: Path, tmp_path: Path, capsys: Output) -> None:
    out, look = tmp_path / "ada", tmp_path / "look"
    command = ["data", "convert", str(source), "--out", str(out), "--flame", "procedural"]
    main([*command, "--name", "Ada", "--licence", "CC0-1.0", "--test-frames", "2"])
    printed = capsys.readouterr()
    assert f"{out.resolve()}: {FRAMES} frames of {SIZE[0]}x{SIZE[1]}, took" in printed.out
    assert printed.err == ""
    made = Dataset.load(out)
    assert (made.name, made.licence, made.source) == ("Ada", "CC0-1.0", "VHAP: 306")
    assert len(made.split("test")) == 2
    assert main([*command]) == 2
    assert "it exists; choose another name or ask for it to be replaced" in capsys.readouterr().err
    main([*command, "--replace"])
    capsys.readouterr()
    code = main(["data", "check", str(out), "--overlays", str(look), "--samples", "2"])
    printed = capsys.readouterr()
    assert code == 1  # the masks of these pictures show nobody
    assert f"2 overlays in {look}" in printed.out
    assert sorted(file.name for file in look.iterdir()) == ["000000.png", "000004.png"]
    assert "not fit to train on" in printed.out
    assert all(line.split(":")[0] in ("error", "warning", "note") for line in printed.out.splitlines()[:-2])


def test_the_report_as_json(dataset: Path, capsys: Output) -> None:
    main(["data", "check", str(dataset), "--samples", "2", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["frames"] == FRAMES
    assert {"severity", "file", "message"} == set(report["findings"][0])


def test_notes_are_printed(tmp_path: Path, capsys: Output) -> None:
    given = truth(True, False)
    folder = write_insta(tmp_path / "obama", given)
    np.save(tmp_path / "identity.npy", given.shape[None].astype(np.float32))
    out = ["--out", str(tmp_path / "out"), "--flame", "procedural", "--shape", str(tmp_path / "identity.npy")]
    main(["data", "convert", str(folder), *out])
    assert "note: no jaw, eyes, eyelids in this data set: at rest" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--flame", "missing.pkl"], "missing.pkl does not exist"),
        (["--flame", "procedural", "--format", "x"], "format must be auto or one of vhap, insta, imavatar, metrical"),
        (["--flame", "procedural", "--shape", "missing.npy"], "missing.npy does not exist"),
        (["--flame", "procedural", "--images", "missing"], "cannot read missing: it does not exist"),
        (["--flame", "procedural", "--test-frames", "9"], "there are 5 frames; 9 of them cannot be for testing"),
        (["--flame", "procedural", "--fps", "-1"], "FlameParams.fps must lie in"),
    ],
)
def test_wrong_options_are_one_line(
    source: Path, tmp_path: Path, arguments: list[str], message: str, capsys: Output
) -> None:
    assert main(["data", "convert", str(source), "--out", str(tmp_path / "x"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("being: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_jobs_from_python(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="samples must be 1 or more"):
        Check(dataset, samples=0).run()
    report = Check(dataset, output=tmp_path, samples=2).run()
    assert report.frames == FRAMES
    counted = []
    made = Convert(
        write_imavatar(tmp_path / "subject", truth(False, True, translated=False)),
        out=tmp_path / "out",
        flame="procedural",
    ).run(lambda done, total: counted.append((done, total)))
    assert counted == [(i + 1, FRAMES) for i in range(FRAMES)]
    assert made.size == SIZE
    assert made.notes == ()
    assert Dataset.load(made.path).source == "IMavatar: subject"


def test_identities(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(100))
    assert np.array_equal(read_identity(tmp_path / "a.npy"), np.arange(100))
    for wrong in (np.zeros((2, 300)), np.zeros(0), np.array(["a"]), np.zeros((1, 1, 5))):
        np.save(tmp_path / "b.npy", wrong)
        with pytest.raises(DatasetError, match=r"b\.npy is no identity"):
            read_identity(tmp_path / "b.npy")
    with pytest.raises(ModelFileError, match="does not exist"):
        open_flame_model(tmp_path / "flame.pkl")


def test_data_sets_need_neither_torch_nor_scipy(dataset: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'scipy', 'av', 'tyro', 'rich')))\n"  # None: cannot be imported
        "from being_rt.dataset_jobs import Check\n"
        "import being_rt.dataset.readers, being_rt.dataset.convert\n"
        f"print(Check({str(dataset)!r}, samples=2).run().frames)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{FRAMES}{os.linesep}"
