"""FlameParams: checks, editing, files, resampling; and writing files in general."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation, Slerp

from being_rt.cache import cache_directory, remove_outdated
from being_rt.errors import BeingError, FileFormatError, InvalidParameterError, UnsupportedVersionError, VideoError
from being_rt.files import atomic_write
from being_rt.flame.model import ExpressionMap
from being_rt.flame.params import WIDTHS, FlameParams
from being_rt.flame.rotations import axis_angles, matrices, quaternions, slerp


def random_params(count: int, seed: int = 0, fps: float = 25.0) -> FlameParams:
    random_ = np.random.default_rng(seed)
    arrays = {name: random_.normal(0, 0.3, (count, width)).astype(np.float32) for name, width in WIDTHS.items()}
    return FlameParams(**arrays, fps=fps)


finite = st.floats(-10, 10, width=32)
vectors = hnp.arrays(np.float32, 3, elements=finite)


@st.composite
def motions(draw: st.DrawFn) -> FlameParams:
    count = draw(st.integers(1, 5))
    arrays = {name: draw(hnp.arrays(np.float32, (count, width), elements=finite)) for name, width in WIDTHS.items()}
    return FlameParams(**arrays, fps=draw(st.floats(1, 120)))


@settings(max_examples=30, deadline=None)
@given(params=motions())
def test_saved_motions_come_back(params: FlameParams, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("motion") / "motion.npz"
    params.save(path)
    assert FlameParams.load(path) == params


@settings(max_examples=30, deadline=None)
@given(params=motions(), cut=st.integers(0, 5))
def test_parts_join_to_the_whole(params: FlameParams, cut: int) -> None:
    frames = list(params)
    assert len(frames) == len(params)
    assert all(len(frame) == 1 for frame in frames)
    assert FlameParams.concatenate(frames) == params
    if 0 < cut < len(params):
        assert FlameParams.concatenate([params[:cut], params[cut:]]) == params


def test_neutral_is_all_zero_and_has_the_documented_shapes() -> None:
    params = FlameParams.neutral(3, fps=30)
    for name, width in WIDTHS.items():
        assert getattr(params, name).shape == (3, width)
        assert getattr(params, name).dtype == np.float32
        assert not getattr(params, name).any()
    assert len(params) == 3
    assert params.duration == pytest.approx(0.1)
    assert len(FlameParams.neutral()) == 1
    assert params != "something else"


def test_indexing_is_like_a_sequence() -> None:
    params = random_params(5)
    assert params[-1] == params[4]
    assert params[1:3].jaw.base is not None  # a view
    assert params[::-1][0] == params[4]
    with pytest.raises(IndexError):
        params[5]
    with pytest.raises(InvalidParameterError, match="T >= 1"):
        params[3:3]


def test_other_number_types_are_converted() -> None:
    params = FlameParams.neutral(2).replace(jaw=np.array([[1, 0, 0], [2, 0, 0]]), fps=np.float32(30))
    assert params.jaw.dtype == np.float32
    assert type(params.fps) is float


@pytest.mark.parametrize("name", WIDTHS)
def test_every_field_is_checked(name: str) -> None:
    params = random_params(4)
    value = getattr(params, name)
    for bad, message in [
        (value[:2], r"must be \[4, |must be \[2, "),
        (value[:, :-1], f"must be \\[4, {WIDTHS[name]}\\]"),
        (value[0], "must be"),
        (value[:0], "must be"),
        (value.astype(complex), "must be real numbers"),
        ("text", "must be real numbers"),
        (None, "must be real numbers"),
        (np.full_like(value, np.nan), "not finite in frame 0"),
        (np.full(value.shape, 1e300), "not finite in frame 0"),
        (np.where(np.arange(4)[:, None] == 2, np.inf, value), "not finite in frame 2"),
    ]:
        with pytest.raises(InvalidParameterError, match=message):
            params.replace(**{name: bad})


@pytest.mark.parametrize("fps", [0, -1, np.nan, np.inf, 1e9, "fast", None])
def test_absurd_rates_are_refused(fps: Any) -> None:
    with pytest.raises(InvalidParameterError, match="fps"):
        FlameParams.neutral(1, fps=fps)
    if fps != "fast" and fps is not None:
        with pytest.raises(InvalidParameterError, match="fps"):
            FlameParams.neutral(1).resample(fps)


def test_misuse_says_what_is_wrong() -> None:
    with pytest.raises(InvalidParameterError, match="no field 'smile'"):
        FlameParams.neutral().replace(smile=1)
    with pytest.raises(InvalidParameterError, match="at least 1 frame, got 0"):
        FlameParams.neutral(0)
    with pytest.raises(InvalidParameterError, match="at least one"):
        FlameParams.concatenate([])
    with pytest.raises(InvalidParameterError, match=r"one fps, got \[25\.0, 30\.0\]; resample first"):
        FlameParams.concatenate([FlameParams.neutral(), FlameParams.neutral(fps=30)])


def test_resampling_follows_straight_lines_and_keeps_the_duration() -> None:
    ramp = np.arange(20, dtype=np.float32)
    params = FlameParams.neutral(20, fps=20).replace(
        translation=ramp[:, None] * np.array([1, 2, 3]), rotation=ramp[:, None] * np.array([0.1, 0, 0])
    )
    result = params.resample(60)
    assert len(result) == 60
    assert result.fps == 60
    assert result.duration == params.duration
    expected = np.minimum(np.arange(60) / 3, 19)
    assert np.allclose(result.translation, expected[:, None] * [1, 2, 3], atol=1e-5)
    assert np.allclose(result.rotation[:, 0], expected * 0.1, atol=1e-6)
    assert result[::3] == params.replace(fps=60)
    assert params.resample(20) is params
    assert len(FlameParams.neutral(1, fps=60).resample(1)) == 1


def test_rotations_take_the_great_circle() -> None:
    params = random_params(6, seed=4, fps=10)
    result = params.resample(37)
    position = np.minimum(np.arange(len(result)) * 10 / 37, 5)
    for name, columns in [("rotation", slice(3)), ("neck", slice(3)), ("eyes", slice(0, 3)), ("eyes", slice(3, 6))]:
        keys = Rotation.from_rotvec(getattr(params, name)[:, columns])
        expected = Slerp(np.arange(6), keys)(position)
        got = Rotation.from_rotvec(getattr(result, name)[:, columns])
        assert (expected.inv() * got).magnitude().max() < 1e-6


@settings(max_examples=100, deadline=None)
@given(a=vectors, b=vectors, fraction=st.floats(0, 1))
def test_rotation_helpers_agree_with_scipy(a: Any, b: Any, fraction: float) -> None:
    expected = Rotation.from_rotvec(a.astype(np.float64))
    assert np.allclose(matrices(a), expected.as_matrix(), atol=1e-12)
    assert np.allclose(np.linalg.norm(quaternions(a)), 1)
    assert np.allclose(matrices(axis_angles(quaternions(a))), expected.as_matrix(), atol=1e-9)
    between = matrices(slerp(a, b, np.float64(fraction)))
    # Whichever way round a half turn is taken, the angles from a and to b share out the whole.
    whole, part = (Rotation.from_matrix(matrices(a).T @ m).magnitude() for m in (matrices(b), between))
    assert part == pytest.approx(fraction * whole, abs=1e-6)


def test_small_angles_keep_their_precision() -> None:
    for size in (0.0, 1e-300, 1e-20, 1e-9, 1e-5):
        vector = np.array([size, 0, 0])
        assert np.allclose(axis_angles(quaternions(vector)), vector, rtol=1e-9, atol=0)


def test_expression_maps_are_linear_and_split_into_fields() -> None:
    matrix = np.zeros((2, 111), np.float32)
    matrix[0, [0, 100, 110]] = 1, 0.3, 1
    matrix[1, [99, 103]] = 2, 0.5
    expression_map = ExpressionMap(("one", "two"), matrix)
    offsets = expression_map.offsets(np.array([[1, 0], [0.5, 2]]))
    assert {name: value.shape for name, value in offsets.items()} == {
        "expression": (2, 100),
        "jaw": (2, 3),
        "eyes": (2, 6),
        "eyelids": (2, 2),
    }
    params = FlameParams.neutral(2).replace(**offsets)
    assert params.expression[1, [0, 99]].tolist() == [0.5, 4.0]
    assert np.allclose(params.jaw[:, 0], [0.3, 0.15])
    assert params.eyes[1, 0] == 1.0
    assert params.eyelids[:, 1].tolist() == [1.0, 0.5]
    assert expression_map.offsets(np.ones(2))["jaw"].shape == (3,)
    with pytest.raises(InvalidParameterError, match=r"weights must be \[2\] or \[T, 2\]"):
        expression_map.offsets(np.ones((2, 3)))
    with pytest.raises(InvalidParameterError, match=r"float32 \[2, 111\]"):
        ExpressionMap(("one", "two"), matrix.astype(np.float64))


def test_files_that_are_no_motion_say_so(tmp_path: Path) -> None:
    path = tmp_path / "motion.npz"
    good = {name: getattr(random_params(2), name) for name in WIDTHS} | {"fps": 25.0, "format_version": 1}
    for changes, message in [
        ({"jaw": np.zeros((2, 4))}, r"motion\.npz: FlameParams\.jaw must be \[2, 3\]"),
        ({"jaw": np.full((2, 3), np.nan)}, "not finite"),
        ({"jaw": np.array(["a"])}, "must be real numbers"),
        ({"fps": 0.0}, "fps must lie in"),
        ({"fps": np.zeros(3)}, r"motion\.npz"),
        ({"format_version": np.float64(np.nan)}, r"motion\.npz"),
        ({"format_version": 0}, "never existed"),
    ]:
        np.savez(path, **good | changes)
        with pytest.raises(FileFormatError, match=message):
            FlameParams.load(path)
    np.savez(path, **good | {"format_version": 2})
    with pytest.raises(UnsupportedVersionError, match="has motion format 2, this being_rt reads up to 1"):
        FlameParams.load(path)
    np.savez(path, jaw=good["jaw"])
    with pytest.raises(FileFormatError, match="is not a motion file: it has no array 'expression'"):
        FlameParams.load(path)
    with pytest.raises(FileFormatError, match="does not exist"):
        FlameParams.load(tmp_path / "absent.npz")


def test_damaged_motion_files_give_being_errors_alone(tmp_path: Path) -> None:
    path = tmp_path / "motion.npz"
    random_params(1).save(path)
    data = path.read_bytes()
    source = random.Random(3)
    outcomes = set()
    for _ in range(300):
        broken = bytearray(data)
        at = source.randrange(len(data))
        if source.random() < 0.5:
            broken[at] ^= 1 << source.randrange(8)
        else:
            del broken[at : at + source.choice([1, 10, len(data)])]
        path.write_bytes(broken)
        try:
            FlameParams.load(path)
            outcomes.add("loaded")
        except BeingError as error:
            outcomes.add(f"{len(str(error).splitlines())} line")
    assert outcomes == {"loaded", "1 line"}


def test_atomic_write_replaces_only_when_all_went_well(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with atomic_write(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".mp4"
        temporary.write_bytes(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]

    def interrupted(problem: type[BaseException]) -> None:
        with atomic_write(path, VideoError) as temporary:
            temporary.write_bytes(b"two")
            raise problem

    for problem in (KeyboardInterrupt, SystemExit, ZeroDivisionError, InvalidParameterError):
        with pytest.raises(problem):
            interrupted(problem)
        assert path.read_bytes() == b"one"
        assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="file locks are POSIX")
def test_atomic_write_clears_up_after_a_killed_process(tmp_path: Path) -> None:
    path, other = tmp_path / "a.mp4", tmp_path / ".a.partial.mp4"
    other.write_bytes(b"of the user's own")
    killed = """import os, sys; from being_rt.files import atomic_write
with atomic_write(sys.argv[1]):
    os._exit(9)"""
    assert subprocess.run([sys.executable, "-c", killed, str(path)], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    assert not path.exists()
    with atomic_write(path) as temporary:
        assert set(tmp_path.iterdir()) == {other, temporary}
        temporary.write_bytes(b"first")
        with atomic_write(path) as second:  # one that is being written is left alone
            second.write_bytes(b"second")
        assert temporary.read_bytes() == b"first"
    assert path.read_bytes() == b"first"
    assert set(tmp_path.iterdir()) == {other, path}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EACCES, "permission denied; choose a folder"),
        (errno.EROFS, "read-only"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_atomic_write_names_the_reason(tmp_path: Path, code: int, message: str) -> None:
    def write() -> None:
        with atomic_write(tmp_path / "a.mp4", VideoError) as half:
            half.write_bytes(b"half")
            raise OSError(code, os.strerror(code))

    with pytest.raises(VideoError, match=rf"cannot write .*a\.mp4: .*{message}"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_atomic_write_refuses_a_folder_and_a_missing_parent(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="a folder of that name is in the way"), atomic_write(tmp_path):
        pytest.fail("the block must not run")
    with pytest.raises(FileFormatError, match="the folder does not exist"), atomic_write(tmp_path / "no" / "a"):
        pytest.fail("the block must not run")


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes and links")
def test_atomic_write_follows_links_and_refuses_pipes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("file")
    with atomic_write(tmp_path / "link") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileFormatError, match="a device or a pipe"), atomic_write(tmp_path / "pipe"):
        pytest.fail("the block must not run")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_atomic_write_gives_ordinary_permissions(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as temporary:
            temporary.write_bytes(b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    (tmp_path / "a").chmod(0o600)
    with atomic_write(tmp_path / "a") as temporary:
        temporary.write_bytes(b"new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEING_RT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_directory() == tmp_path / "xdg" / "being_rt"
    assert cache_directory().is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "being_rt"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_directory() == tmp_path / "local" / "being_rt"
    monkeypatch.setenv("BEING_RT_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("BEING_RT_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(FileFormatError, match=r"cannot create the cache folder .* or set BEING_RT_CACHE"):
        cache_directory()


def test_outdated_entries_of_the_cache_go_and_nothing_else(tmp_path: Path) -> None:
    new = tmp_path / f"demo-ada-{'1' * 16}.being"
    outdated = tmp_path / f"demo-ada-{'0' * 16}.being"
    kept = [
        new,
        tmp_path / f"demo-ada-lee-{'0' * 16}.being",
        tmp_path / f"demo-ada-{'0' * 16}.npz",
        tmp_path / f"demo-ada-{'0' * 15}.being",
        tmp_path / "demo-ada-of-my-own.being",
    ]
    for path in (outdated, *kept):
        path.write_bytes(b"content")
    (folder := tmp_path / f"demo-ada-{'2' * 16}.being").mkdir()
    remove_outdated(new)
    assert set(tmp_path.iterdir()) == {*kept, folder}
    remove_outdated(tmp_path / "no-key.being")
    assert set(tmp_path.iterdir()) == {*kept, folder}
