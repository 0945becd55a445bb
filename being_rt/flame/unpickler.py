"""Pickled arrays read as data. A pickle is a program; this interpreter of it has nothing that could be called.

FLAME's models and masks come as pickles, some written by Python 2 with chumpy and old SciPy inside. ``pickle.load``
would import and call whatever such a file names. Here the opcodes move plain data about: a class or function becomes
a name (:class:`Global`), a call becomes a record of it (:class:`Object`), and only names on a short list of array
containers are accepted at all. :func:`as_array` then builds arrays from the records that describe one.
"""

from __future__ import annotations

import codecs
import io
import os
import pickletools
import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from being_rt.errors import ModelFileError
from being_rt.files import first_line, reading

FILE_LIMIT = 1 << 29  # bytes; FLAME's own pickles take 50-55 MB
# An opcode of one byte can make an object of some 100 bytes, so their number is what bounds memory and time.
# FLAME's pickles have a few hundred opcodes, FLAME_masks.pkl a thousand.
OPCODE_LIMIT = 200_000
ARRAY_LIMIT = 1 << 29  # bytes of one decoded array; shapedirs takes 48 MB


class Global(NamedTuple):
    """A class or function that a pickle names, never looked up."""

    module: str
    name: str


@dataclass(eq=False)
class Object:
    """What a pickle would have made by calling ``callee(*arguments)`` and then setting ``state``."""

    callee: Global
    arguments: tuple[Any, ...]
    state: Any = None


_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_RECONSTRUCT = {Global(module, "_reconstruct") for module in _NUMPY_MODULES}
_SCALAR = {Global(module, "scalar") for module in _NUMPY_MODULES}
_FROM_BUFFER = {Global(module, "_frombuffer") for module in ("numpy.core.numeric", "numpy._core.numeric")}
_NDARRAY = Global("numpy", "ndarray")
_DTYPE = Global("numpy", "dtype")
_ENCODE = Global("_codecs", "encode")
_CHUMPY = Global("chumpy.ch", "Ch")
_SPARSE = {
    Global(f"scipy.sparse.{prefix}{kind}", f"{kind}_{suffix}")
    for kind in ("csc", "csr", "coo")
    for prefix in ("", "_")
    for suffix in ("matrix", "array")
}
_RECONSTRUCTOR = {Global("copy_reg", "_reconstructor"), Global("copyreg", "_reconstructor")}
# Bookkeeping in the state of chumpy arrays; read past, never used.
_CONTAINERS = {
    Global(module, name)
    for module in ("__builtin__", "builtins")
    for name in ("object", "set", "frozenset", "bytes", "bytearray")
} | {Global("collections", "OrderedDict")}
_ALLOWED = {
    *_RECONSTRUCT,
    *_SCALAR,
    *_FROM_BUFFER,
    *_SPARSE,
    *_RECONSTRUCTOR,
    *_CONTAINERS,
    _NDARRAY,
    _DTYPE,
    _ENCODE,
    _CHUMPY,
}


def read_pickle(path: str | os.PathLike[str]) -> Any:
    """The content of a pickle of any protocol, as plain data, :class:`Global` and :class:`Object`. Runs nothing.

    Text of Python 2 pickles is decoded as Latin-1, as ``encoding="latin1"`` would.

    Raises:
        ModelFileError: the file is missing, too large, damaged, or names a class or function that array files do not
            need; the message says which.

    Example::

        content = read_pickle("flame2023_Open.pkl")
        template = as_array(content["v_template"])
    """
    with reading(path, "a pickle", ModelFileError):
        with open(path, "rb") as stream:
            if os.fstat(stream.fileno()).st_size > FILE_LIMIT:
                raise ModelFileError(f"{path} is too large for a FLAME file: more than {FILE_LIMIT >> 20} MB")
            data = stream.read()
        try:
            return parse_pickle(data)
        except ModelFileError as problem:
            raise ModelFileError(f"{path}: {problem}") from None


def parse_pickle(data: bytes, operations: int = OPCODE_LIMIT) -> Any:
    """As :func:`read_pickle`, of a pickle in memory: one that lies inside another file.

    Args:
        operations: how many it may have at most.

    Raises:
        ModelFileError: it names a class or function that array files do not need.
        Exception: of any type, where it is damaged.
    """
    return _Machine().run(data, operations)


@dataclass
class _Machine:
    """The stack machine that a pickle is written for; see the module ``pickletools`` for its opcodes."""

    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, data: bytes, operations: int) -> Any:
        stream = io.BytesIO(data)
        for _ in range(operations):
            name, argument = _next_operation(stream)
            if name == "STOP":
                if len(self.stack) != 1:
                    raise ValueError(f"{len(self.stack)} values are left at its end")
                return self.stack[0]
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name in _PUSHED:
                self.stack.append(argument)
            else:
                step = getattr(self, f"_{name.lower()}", None)
                if step is None:
                    raise ModelFileError(f"the pickle operation {name} is refused: array files do not need it")
                step(argument)
        raise ModelFileError(f"more than {operations} pickle operations, far more than such a file has")

    def _pop_mark(self, _: Any = None) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _call(self, callee: Any, arguments: Any) -> None:
        if not isinstance(callee, Global) or not isinstance(arguments, tuple):
            raise ModelFileError("calls something that is not a plain class or function")
        if callee in _RECONSTRUCTOR:  # copyreg._reconstructor(class, base, state of base)
            callee, arguments = arguments[0], ()
            if not isinstance(callee, Global):
                raise ModelFileError("reconstructs something that is not a plain class")
        self.stack.append(Object(callee, arguments))

    def _find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ModelFileError("names a class or function by something that is not text")
        found = Global(module, name)
        if found not in _ALLOWED:
            shown = f"{module}.{name}"[:100].encode("ascii", "backslashreplace").decode()
            raise ModelFileError(f"refused: it asks for {shown!r}, which array files do not need")
        self.stack.append(found)

    # Each method below is one opcode: the name in lower case, the argument as pickletools decodes it.

    def _proto(self, _: Any) -> None: ...

    def _frame(self, _: Any) -> None: ...

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _pop(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _empty_list(self, _: Any) -> None:
        self.stack.append([])

    def _empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def _empty_set(self, _: Any) -> None:
        self.stack.append([])

    def _list(self, _: Any) -> None:
        self.stack.append(self._pop_mark())

    def _frozenset(self, _: Any) -> None:
        self.stack.append(self._pop_mark())

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_mark()))

    def _tuple1(self, _: Any) -> None:
        self._pack(1)

    def _tuple2(self, _: Any) -> None:
        self._pack(2)

    def _tuple3(self, _: Any) -> None:
        self._pack(3)

    def _pack(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) != count:
            raise ValueError("its stack runs empty")
        del self.stack[-count:]
        self.stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._pop_mark()
        self.stack.append({})
        self._set(items)

    def _setitem(self, _: Any) -> None:
        self._pack(2)
        self._set(list(self.stack.pop()))

    def _setitems(self, _: Any) -> None:
        self._set(self._pop_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Object):  # an OrderedDict; its content is never needed
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | bytes | int | float | None):
                raise ValueError("a dictionary key is neither text nor a number")
            target[key] = value

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    _additems = _appends

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("it appends to something that is not a list")
        target.extend(items)

    def _global(self, argument: str) -> None:
        self._find(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._find(module, name)

    def _inst(self, argument: str) -> None:
        arguments = tuple(self._pop_mark())
        self._global(argument)
        self._call(self.stack.pop(), arguments)

    def _obj(self, _: Any) -> None:
        callee, *arguments = self._pop_mark()
        self._call(callee, tuple(arguments))

    def _reduce(self, _: Any) -> None:
        arguments, callee = self.stack.pop(), self.stack.pop()
        self._call(callee, arguments)

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        self.stack.pop()  # keyword arguments: none of the allowed classes has any
        self._reduce(None)

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, Object):
            raise ModelFileError("sets the state of something that is not an array object")
        target.state = state

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get


def _next_operation(stream: io.BytesIO) -> tuple[str, Any]:
    opcode = _OPCODES.get(stream.read(1))
    if opcode is None:
        raise ValueError("it ends early" if stream.tell() == len(stream.getbuffer()) else "it is not a pickle at all")
    if opcode.name == "STRING":  # pickletools takes ASCII alone; Python 2 wrote the bytes of arrays so in protocol 0
        quoted: Any = pickletools.read_stringnl(stream, decode=False)
        return "STRING", codecs.escape_decode(quoted)[0].decode("latin-1")
    return opcode.name, opcode.arg.reader(stream) if opcode.arg else None


_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# fmt: off
_PUSHED = {  # whatever carries a value in the file and only puts it on the stack
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}
# fmt: on


def as_array(value: Any) -> NDArray[Any]:
    """The array that a record of :func:`read_pickle` describes: NumPy, chumpy, SciPy sparse (made dense), or a list.

    Raises:
        ModelFileError: it describes none, or one whose parts contradict each other.
    """
    try:
        return _as_array(value)
    except ModelFileError:
        raise
    except Exception as problem:  # indices, shapes and lengths come from the file
        raise ModelFileError(f"a damaged array: {first_line(problem)}") from problem


def _as_array(value: Any) -> NDArray[Any]:
    if isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value):
        return np.array(value, np.float64)
    if isinstance(value, Object):
        if value.callee == _CHUMPY:
            return _as_numpy(value.state["x"])
        if value.callee in _SPARSE:
            return _from_sparse(value)
    return _as_numpy(value)


def _as_numpy(value: Any) -> NDArray[Any]:
    """As ``_as_array``, for the parts of chumpy and SciPy arrays: those must be NumPy's, so nothing nests."""
    if not isinstance(value, Object):
        raise ModelFileError(f"expected an array, found {type(value).__name__}")
    if value.callee in _RECONSTRUCT:
        _, shape, dtype, fortran, data = value.state
        return _from_bytes(data, dtype, shape, "F" if fortran else "C")
    if value.callee in _FROM_BUFFER:
        data, dtype, shape, order = value.arguments
        return _from_bytes(data, dtype, shape, "F" if order == "F" else "C")
    if value.callee in _SCALAR:
        dtype, data = value.arguments
        return _from_bytes(data, dtype, (), "C")
    raise ModelFileError(f"expected an array, found {value.callee.module}.{value.callee.name}")


def _from_bytes(data: Any, dtype: Any, shape: Any, order: Literal["C", "F"]) -> NDArray[Any]:
    if isinstance(data, Object) and data.callee == _ENCODE:  # Python 3 writes bytes so in protocols 0 to 2
        text, codec = data.arguments
        if codec not in ("latin1", "latin-1"):
            raise ModelFileError("an array's bytes are encoded in an unknown way")
        data = text
    elif isinstance(data, Object) and data.callee.name == "bytes" and not data.arguments:  # how it writes no bytes
        data = b""
    if isinstance(data, str):
        data = data.encode("latin-1")
    if not isinstance(data, bytes | bytearray):
        raise ModelFileError("an array holds Python objects instead of numbers")
    if not isinstance(shape, tuple):
        raise ModelFileError("an array without a shape")
    return np.frombuffer(data, _dtype(dtype)).reshape(shape, order=order)


def _dtype(value: Any) -> np.dtype[Any]:
    if not isinstance(value, Object) or value.callee != _DTYPE:
        raise ModelFileError("an array without a type")
    code, order = value.arguments[0], value.state[1]
    if not isinstance(code, str) or not re.fullmatch(r"[iu][1248]|f[248]", code) or order not in ("<", ">", "|", "="):
        raise ModelFileError("an array of something else than plain numbers")
    return np.dtype(("<" if order == "=" else order) + code)


def _from_sparse(value: Object) -> NDArray[np.float64]:
    state = value.state
    rows, columns = (int(size) for size in state.get("_shape", state.get("shape")))
    if min(rows, columns) < 0 or max(rows, columns) > ARRAY_LIMIT or rows * columns * 8 > ARRAY_LIMIT:
        raise ModelFileError("a sparse matrix far larger than FLAME's")
    data = _as_numpy(state["data"])
    kind = value.callee.name[:3]
    if kind == "coo":
        parts = state["coords"] if "coords" in state else (state["row"], state["col"])
        row, column = (_as_numpy(part).astype(np.int64) for part in parts)
    else:
        minor, starts = (_as_numpy(state[name]).astype(np.int64) for name in ("indices", "indptr"))
        lengths = np.diff(starts)
        # Bounding each length keeps their sum from wrapping round to the right number.
        valid = starts.ndim == 1 and len(starts) == (columns if kind == "csc" else rows) + 1
        if not valid or not (lengths.min(initial=0) >= 0 and lengths.max(initial=0) <= len(minor) == lengths.sum()):
            raise ModelFileError("a sparse matrix whose parts contradict each other")
        major = np.repeat(np.arange(len(lengths)), lengths)
        row, column = (minor, major) if kind == "csc" else (major, minor)
    if not row.shape == column.shape == data.shape == (data.size,):
        raise ModelFileError("a sparse matrix whose parts contradict each other")
    if len(row) and (min(row.min(), column.min()) < 0 or row.max() >= rows or column.max() >= columns):
        raise ModelFileError("a sparse matrix with an entry outside it")
    dense = np.zeros((rows, columns), np.float64)
    np.add.at(dense, (row, column), data)
    return dense
