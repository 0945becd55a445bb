"""FLAME model files: every edition and pickle dialect loads, everything hostile or broken is one typed line."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import struct
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from being_rt.errors import BeingError, InvalidParameterError, ModelFileError
from being_rt.files import read_npz
from being_rt.flame import loader, unpickler
from being_rt.flame.loader import load_flame_model
from being_rt.flame.unpickler import as_array, read_pickle

VERTICES, FACES = 23, 40


def flame_arrays(seed: int = 0, vertices: int = VERTICES, faces: int = FACES) -> dict[str, Any]:
    """The table of a FLAME pickle, with random content and few vertices."""
    random_ = np.random.default_rng(seed)
    weights = random_.random((vertices, 5)) ** 3
    regressor = random_.random((5, vertices)) * (random_.random((5, vertices)) < 0.3) + 1e-3
    return {
        "f": random_.integers(0, vertices, (faces, 3)).astype(np.uint32),
        "v_template": random_.normal(0, 0.07, (vertices, 3)),
        "shapedirs": random_.normal(0, 1e-3, (vertices, 3, 400)),
        "posedirs": random_.normal(0, 1e-3, (vertices, 3, 36)),
        "J_regressor": scipy.sparse.csc_matrix(regressor / regressor.sum(1, keepdims=True)),
        "J": random_.normal(0, 0.07, (5, 3)),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes text and bytes as Python 2 did: both as its byte strings."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]  # noqa: RUF012

    def save_string(self, value: str | bytes) -> None:
        data = value.encode("latin-1") if isinstance(value, str) else value
        if self.proto == 0:
            text = "".join(chr(c) if 32 <= c < 127 and c not in b"'\\" else f"\\x{c:02x}" for c in data)
            self.write(b"S'" + text.encode("ascii") + b"'\n")
        else:
            self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = save_string
    dispatch[bytes] = save_string


def python2_pickle(value: Any, protocol: int, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """As FLAME was published: Python 2, NumPy 1, old SciPy, shapedirs a chumpy array."""
    module = types.ModuleType("chumpy.ch")
    module.Ch = type("Ch", (), {"__module__": "chumpy.ch", "__qualname__": "Ch"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    wrapped = module.Ch()
    wrapped.__dict__.update(x=value["shapedirs"], _dirty_vars={"x"}, _itr=None, _cache={})
    stream = io.BytesIO()
    Python2Pickler(stream, protocol).dump(value | {"shapedirs": wrapped})
    data = stream.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")
    data = data.replace(b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n")
    assert b"cchumpy.ch\nCh\n" in data
    assert b"cscipy.sparse.csc\ncsc_matrix\n" in data
    return data


def assert_same(model: Any, content: dict[str, Any]) -> None:
    assert np.array_equal(model.template, content["v_template"].astype(np.float32))
    assert np.array_equal(model.faces, content["f"])
    assert np.array_equal(model.shape_basis, content["shapedirs"][:, :, :300].astype(np.float32))
    assert np.array_equal(model.expression_basis, content["shapedirs"][:, :, 300:].astype(np.float32))
    assert np.array_equal(model.pose_basis, content["posedirs"].astype(np.float32))
    assert np.allclose(model.joint_regressor, content["J_regressor"].toarray(), atol=1e-7)
    assert np.array_equal(model.skinning_weights, content["weights"].astype(np.float32))


def write_pickle(path: Path, value: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_python3_pickles_of_every_protocol_load(tmp_path: Path, protocol: int) -> None:
    content = flame_arrays()
    assert_same(load_flame_model(write_pickle(tmp_path / "model.pkl", content, protocol)), content)


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_python2_pickles_with_chumpy_and_old_scipy_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    content = flame_arrays()
    path = tmp_path / "model.pkl"
    path.write_bytes(python2_pickle(content, protocol, monkeypatch))
    assert_same(load_flame_model(path), content)


@pytest.mark.parametrize("kind", ["csc", "csr", "coo"])
@pytest.mark.parametrize("flavour", ["matrix", "array"])
def test_sparse_matrices_become_dense(tmp_path: Path, kind: str, flavour: str) -> None:
    dense = np.random.default_rng(1).random((5, 9)) * (np.arange(45).reshape(5, 9) % 3 == 0)
    sparse = getattr(scipy.sparse, f"{kind}_{flavour}")(dense)
    assert np.array_equal(as_array(read_pickle(write_pickle(tmp_path / "a.pkl", sparse))), dense)


def test_arrays_of_every_layout_are_read(tmp_path: Path) -> None:
    for array in (
        np.arange(6, dtype=">f8").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(12, dtype=np.int16)[::2],
        np.float32(3.5),
        np.zeros((0, 3)),
    ):
        for protocol in range(6):
            read = as_array(read_pickle(write_pickle(tmp_path / "a.pkl", array, protocol)))
            assert np.array_equal(read, array)
            assert read.shape == array.shape


def test_npz_loads_and_equals_the_pickle(tmp_path: Path) -> None:
    content = flame_arrays()
    dense = content | {"J_regressor": content["J_regressor"].toarray()}
    np.savez_compressed(tmp_path / "model.npz", **dense)
    assert_same(load_flame_model(tmp_path / "model.npz"), content)


def test_side_files_fill_uvs_landmarks_regions_and_eyelids(tmp_path: Path) -> None:
    content = flame_arrays()
    random_ = np.random.default_rng(2)
    uv, uv_faces = random_.random((30, 2)), random_.integers(0, 30, (FACES, 3))
    np.savez(tmp_path / "uv.npz", vt=uv, ft=uv_faces, mean=np.zeros((4, 4, 3), np.uint8))
    np.savez(tmp_path / "points.npz", lmk_face_idx=np.array([3, 7], np.uint32), lmk_b_coords=np.full((2, 3), 1 / 3))
    write_pickle(tmp_path / "masks.pkl", {"face": np.array([1, 5, 2]), "nose": np.array([9])})
    lids = random_.normal(size=(2, VERTICES, 3))
    for name, lid in zip(("l.npy", "r.npy"), lids, strict=True):
        np.save(tmp_path / name, lid)
    model = load_flame_model(
        write_pickle(tmp_path / "model.pkl", content),
        uv=tmp_path / "uv.npz",
        landmarks={"mediapipe105": tmp_path / "points.npz"},
        masks=tmp_path / "masks.pkl",
        eyelids=(tmp_path / "l.npy", tmp_path / "r.npy"),
    )
    assert model.uv is not None
    assert model.uv_faces is not None
    assert np.array_equal(model.uv, uv.astype(np.float32))
    assert np.array_equal(model.uv_faces, uv_faces)
    assert model.landmarks["mediapipe105"][0].tolist() == [3, 7]
    assert model.regions["face"].tolist() == [1, 5, 2]
    assert np.array_equal(model.eyelid_basis, np.moveaxis(lids, 0, -1).astype(np.float32))


def test_side_file_errors_name_their_own_file(tmp_path: Path) -> None:
    model = write_pickle(tmp_path / "model.pkl", flame_arrays())
    np.savez(tmp_path / "uv.npz", vt=np.zeros((5, 2)), ft=np.full((FACES, 3), 5))
    with pytest.raises(ModelFileError, match=r"uv\.npz: ft has indices outside 0\.\.4"):
        load_flame_model(model, uv=tmp_path / "uv.npz")
    write_pickle(tmp_path / "masks.pkl", {"face": np.array([VERTICES])})
    with pytest.raises(ModelFileError, match=r"region face has indices outside"):
        load_flame_model(model, masks=tmp_path / "masks.pkl")
    write_pickle(tmp_path / "masks.pkl", {"face": np.array([2**32 + 1])})
    with pytest.raises(ModelFileError, match=r"masks\.pkl: face has indices outside"):
        load_flame_model(model, masks=tmp_path / "masks.pkl")


def test_editions_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def edition(folder: str, name: str, **extra: Any) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        return load_flame_model(write_pickle(tmp_path / folder / name, flame_arrays() | extra)).edition

    assert edition("some", "generic_model.pkl") == "unknown"
    assert edition("FLAME2020", "generic_model.pkl") == "flame-2020"
    assert edition("some", "flame2023.pkl") == "flame-2023"
    assert edition("FLAME2020", "flame2023_no_jaw.pkl") == "flame-2023"
    assert edition("some", "flame2023_Open.pkl") == "flame-2023-open"
    # The Open edition's own key decides against a misleading name.
    assert edition("FLAME2020", "flame2023.pkl", supr_expression_metadata={"n_expr": 100}) == "flame-2023-open"
    template = flame_arrays()["v_template"]
    template[:2] = loader._BOUNDS_2023_OPEN
    template[2:] = 0
    assert edition("some", "head.pkl", v_template=template) == "flame-2023-open"
    monkeypatch.setattr(loader, "_PICKLE_2020", _sha256(tmp_path / "some" / "generic_model.pkl"))
    assert edition("some", "generic_model.pkl") == "flame-2020"
    assert load_flame_model(tmp_path / "some" / "flame2023.pkl", edition="flame-2020").edition == "flame-2020"
    with pytest.raises(InvalidParameterError, match="edition must be one of"):
        load_flame_model(tmp_path / "some" / "flame2023.pkl", edition="flame")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_open_template_is_recognised_by_its_bounds(tmp_path: Path) -> None:
    root = os.environ.get("BEING_RT_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(root) / "flame" / "flame2023-open-template.npz"
    if not path.exists():
        pytest.skip(f"{path} is absent; it is not part of the repository")
    with np.load(path) as real:
        template, faces = real["v_template"], real["faces_head"]
    content = flame_arrays(vertices=1) | {"v_template": template, "f": faces}
    count = len(template)
    content |= {
        "shapedirs": np.zeros((count, 3, 400), np.float32),
        "posedirs": np.zeros((count, 3, 36), np.float32),
        "weights": np.full((count, 5), 0.2),
        "J_regressor": np.full((5, count), 1 / count),
    }
    np.savez(tmp_path / "head.npz", **content)
    assert load_flame_model(tmp_path / "head.npz").edition == "flame-2023-open"


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile_pickles(marker: Path) -> dict[str, bytes]:
    """Pickles that would make the file ``marker`` if any part of them ran; each is checked to be a real pickle."""
    code = f"open({str(marker)!r}, 'w').close()"
    touch = f"touch {marker}"

    def call(module: str, name: str, *arguments: Any) -> bytes:
        """GLOBAL, arguments, REDUCE."""
        body = b"".join(pickle.dumps(a, 2)[2:-1] for a in arguments)
        return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + body + b"tR."

    array = pickle.dumps(np.arange(3.0), 2)
    return {
        "os.system": pickle.dumps(Call(os.system, touch)),
        "os.system, protocol 0": pickle.dumps(Call(os.system, touch), 0),
        "eval": pickle.dumps(Call(eval, code)),
        "eval of Python 2": call("__builtin__", "eval", code),
        "exec": pickle.dumps(Call(exec, code)),
        "getattr": pickle.dumps(Call(getattr, Call(__import__, "os"), "system")),
        "subprocess": call("subprocess", "check_output", ["touch", str(marker)]),
        "runpy": call("runpy", "run_path", str(marker)),
        "numpy exec": call("numpy.testing._private.utils", "runstring", code, {}),
        "numpy load": call("numpy", "load", str(marker)),
        "numpy fromfile": call("numpy", "fromfile", str(marker)),
        "numpy dotted": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        "numpy.core gadget": call("numpy.core.numeric", "fromfunction", eval),
        "numpy._core gadget": call("numpy._core.multiarray", "set_string_function", eval),
        "numpy memmap": call("numpy", "memmap", str(marker), "u1", "w+", 0, [4]),
        "copyreg add_extension": call("copyreg", "add_extension", "os", "system", 1),
        "copyreg constructor": b"\x80\x02ccopyreg\n__newobj__\ncos\nsystem\n\x85R.",
        "reconstructor of a call": b"\x80\x02ccopy_reg\n_reconstructor\n(K\x01c__builtin__\nobject\nNtR.",
        "functools": call("functools", "partial", 1),
        "operator": call("operator", "methodcaller", "system", touch),
        "inst": b"(S" + repr(touch).encode() + b"\nios\nsystem\n.",
        "obj": b"\x80\x02(cos\nsystem\nS" + repr(touch).encode() + b"\no.",
        "persistent id": b"Pos.system\n.",
        "binary persistent id": b"\x80\x02U\x04evilQ.",
        "extension": b"\x80\x02\x82\x01.",
        "out of band buffer": b"\x80\x05\x97.",
        "stack global of a number": b"\x80\x04K\x01K\x02\x93.",
        "state of a class": b"\x80\x02cchumpy.ch\nCh\n}U\x0c__setstate__cnumpy\nndarray\nsb.",
        "state of a list": b"\x80\x02]}U\x01aK\x01sb.",
        "slots of a function": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}U\x08__code__K\x01s\x86b.",
        "call of a string": b"\x80\x02U\x09os.system(tR.",
        "call of an object": array[:-1] + b"(tR.",
        "text in the name": call("numpy\x1b[31m", "ndarray"),
    }


def test_hostile_pickles_run_nothing_and_say_what_they_wanted(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for name, data in hostile_pickles(marker).items():
        for content in (data, pickle.dumps({"v_template": 1}, 2)[:-1] + data[2 if data[:1] == b"\x80" else 0 :]):
            path = tmp_path / "model.pkl"
            path.write_bytes(content)
            modules = set(sys.modules)
            with pytest.raises(ModelFileError) as caught:
                load_flame_model(path)
            assert not marker.exists(), name
            assert set(sys.modules) == modules, name
            assert "\n" not in str(caught.value), name
            assert str(caught.value).isprintable(), name
    path.write_bytes(hostile_pickles(marker)["os.system"])
    with pytest.raises(ModelFileError, match=rf"refused: it asks for '{os.name}\.system'"):
        load_flame_model(path)


def test_the_hostile_pickles_are_hostile(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    pickle.loads(hostile_pickles(marker)["exec"])
    assert marker.exists()


def reconstruct(
    dtype: bytes, state: bytes, data: bytes = b"U\x08\0\0\0\0\0\0\0\0", shape: bytes = b"K\x01\x85"
) -> bytes:
    """The pickle of a one-element NumPy array with parts to tamper with."""
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\nU"
        + bytes([len(dtype)])
        + dtype
        + b"K\x00K\x01\x87R"
        + state
        + b"b\x89"
        + data
        + b"tb."
    )


STATE = b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"


def test_arrays_with_impossible_parts_are_refused(tmp_path: Path) -> None:
    def read(data: bytes) -> Any:
        (tmp_path / "a.pkl").write_bytes(data)
        return as_array(read_pickle(tmp_path / "a.pkl"))

    assert read(reconstruct(b"f8", STATE)).tolist() == [0.0]
    many = b"(" + b"J\xff\xff\xff\x7f" * 3 + b"t"
    for bad in (
        reconstruct(b"O8", STATE),
        reconstruct(b"V8", STATE),
        reconstruct(b"f8", b"N"),
        reconstruct(b"f8", STATE.replace(b"<", b"?")),
        reconstruct(b"f8", STATE, data=b"U\x04\0\0\0\0"),
        reconstruct(b"f8", STATE, data=b"]"),
        reconstruct(b"f8", STATE, data=b"N"),
        reconstruct(b"f8", STATE, shape=many),
        reconstruct(b"f8", STATE, shape=b"K\x02\x85"),
        reconstruct(b"f8", STATE, shape=b"N"),
        reconstruct(b"f8", STATE, shape=b"}"),
    ):
        with pytest.raises(ModelFileError):
            read(bad)


@pytest.mark.parametrize(
    "change",
    [
        {"indices": np.array([0, 1, 7])},
        {"indices": np.array([0, -1, 1])},
        {"indices": np.array([0, 1])},
        {"indptr": np.array([0, 1, 2, 4])},
        {"indptr": np.array([0, 5, 2, 3])},
        {"indptr": np.array([0, 5, 3, 3], np.uint64)},
        {"indptr": np.array([0, 3])},
        {"indptr": np.array([[0, 1, 2, 3]])},
        {"data": np.ones((3, 1))},
        {"_shape": (-3, -3)},
        {"_shape": (1 << 40, 3)},
        {"_shape": (1 << 20, 1 << 20)},
    ],
)
def test_sparse_matrices_with_impossible_parts_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    matrix = scipy.sparse.csc_matrix(np.eye(3))
    matrix.__dict__.update(change)
    with pytest.raises(ModelFileError, match="sparse matrix"):
        as_array(read_pickle(write_pickle(tmp_path / "a.pkl", matrix)))


def test_pickle_bombs_are_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x02(" + b"}" * (unpickler.OPCODE_LIMIT + 1) + b"l.")
    with pytest.raises(ModelFileError, match="pickle operations"):
        load_flame_model(path)
    # 2^100 elements by sharing: harmless while nobody walks it.
    laughs = b"\x80\x02(]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(100)) + b"l."
    path.write_bytes(laughs)
    with pytest.raises(ModelFileError, match="holds no table"):
        load_flame_model(path)
    with pytest.raises(ModelFileError, match="expected an array"):
        as_array(read_pickle(path))
    # A length that the file does not have.
    path.write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"abc")
    with pytest.raises(ModelFileError):
        load_flame_model(path)
    monkeypatch.setattr(unpickler, "FILE_LIMIT", 10)
    with pytest.raises(ModelFileError, match="too large"):
        load_flame_model(path)


def test_npz_bombs_and_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("v_template.npy", header.getvalue() + bytes(1000))
    with pytest.raises(ModelFileError, match="shorter or longer than its header"):
        load_flame_model(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("v_template.npy", bytes(1 << 20))
    with pytest.raises(ModelFileError, match="too large"):
        read_npz(path, ModelFileError, limit=1 << 19)
    np.savez(path, **{f"array {index}": np.zeros(1) for index in range(1001)})
    with pytest.raises(ModelFileError, match="too large"):
        load_flame_model(path)
    np.savez(path, v_template=np.array([Call(os.system, f"touch {tmp_path / 'ran'}")], object))
    with pytest.raises(ModelFileError, match="not accepted"):
        load_flame_model(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v_template": np.zeros((VERTICES, 2))}, r"'v_template' should be numbers \[any, 3\]"),
        ({"v_template": np.zeros((VERTICES + 1, 3))}, "'shapedirs' should be numbers"),
        ({"shapedirs": np.zeros((VERTICES, 3, 10))}, r"'shapedirs' should be numbers \[23, 3, 400\]"),
        ({"posedirs": np.zeros((VERTICES, 3, 207))}, "'posedirs' should be numbers"),
        ({"f": np.full((FACES, 3), VERTICES)}, r"f has indices outside 0\.\.22"),
        ({"f": np.full((FACES, 3), 2**32 + 1)}, "f has indices outside"),
        ({"f": np.full((FACES, 3), -1)}, "f has indices outside"),
        ({"f": np.zeros((FACES, 3))}, "f has indices that are not whole numbers"),
        ({"weights": np.ones((VERTICES, 5))}, "skinning_weights has rows that do not sum to 1"),
        ({"v_template": np.full((VERTICES, 3), np.nan)}, "template has values that are NaN or infinite"),
        ({"v_template": np.full((VERTICES, 3), 1e300)}, "template has values that are NaN or infinite"),
        ({"kintree_table": np.zeros((2, 24), np.int64)}, "'kintree_table' should be"),
        ({"kintree_table": np.zeros((2, 5), np.int64)}, "not FLAME's joints"),
        ({"v_template": "text"}, "'v_template': expected an array, found str"),
        ({"J_regressor": None}, "'J_regressor': expected an array"),
    ],
)
def test_tables_that_are_not_flame_say_why(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write_pickle(tmp_path / "model.pkl", flame_arrays() | change)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_flame_model(path)
    assert str(caught.value).startswith(str(path))


def test_missing_empty_and_foreign_files_say_what_they_are_not(tmp_path: Path) -> None:
    for name, content, message in [
        ("absent.pkl", None, "does not exist"),
        ("absent.npz", None, "does not exist"),
        ("empty.pkl", b"", "ends early"),
        ("empty.npz", b"", "not an .npz file"),
        ("text.pkl", b"hello world\n", "not a pickle"),
        ("list.pkl", pickle.dumps([1, 2]), "holds no table"),
        ("other.pkl", pickle.dumps({"a": 1}), "it has no 'v_template'"),
        ("model.obj", b"v 0 0 0\n", "expected a .pkl or .npz file"),
    ]:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelFileError, match=message) as caught:
            load_flame_model(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "folder.pkl").mkdir()
    with pytest.raises(ModelFileError, match="cannot read"):
        load_flame_model(tmp_path / "folder.pkl")


def damaged(data: bytes, source: random.Random) -> bytes:
    """Some bytes flipped, a piece cut out, or a piece copied elsewhere."""
    result = bytearray(data)
    # Nine bytes in ten are array content, which may hold anything: aim at the structure, near the start and the end.
    ends = [*range(min(len(data), 3000)), *range(max(0, len(data) - 3000), len(data))]
    kind = source.randrange(4)
    if kind == 0:
        for _ in range(source.randint(1, 8)):
            result[source.choice(ends)] = source.randrange(256)
    elif kind == 1:
        del result[source.choice(ends) :]
    else:
        start, length = source.choice(ends), source.randint(1, 60)
        piece = result[start : start + length]
        if kind == 2:
            del result[start : start + length]
        at = source.choice(ends)
        result[at:at] = piece
    return bytes(result)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # what pickletools says to damaged text
@pytest.mark.parametrize("dialect", ["python2", "protocol 4", "npz"])
def test_damaged_files_give_being_errors_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dialect: str) -> None:
    content = flame_arrays(vertices=3, faces=2)
    path = tmp_path / ("model.npz" if dialect == "npz" else "model.pkl")
    if dialect == "python2":
        path.write_bytes(python2_pickle(content, 2, monkeypatch))
    elif dialect == "npz":
        np.savez(path, **content | {"J_regressor": content["J_regressor"].toarray()})
    else:
        write_pickle(path, content, 4)
    data = path.read_bytes()
    source = random.Random(7)
    outcomes = set()
    for _ in range(400):
        path.write_bytes(damaged(data, source))
        try:
            load_flame_model(path)
            outcomes.add("loaded")
        except BeingError as error:
            outcomes.add(f"{type(error).__name__} in {len(str(error).splitlines())} line")
    assert outcomes == {"loaded", "ModelFileError in 1 line"}
