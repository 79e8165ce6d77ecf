"""Pickles of numpy arrays, read without letting them run code.

A pickle is a program that may call anything it names. This reader knows the few names that arrays, numbers and
containers need; any other name refuses the file. Objects of libraries that only wrap arrays (chumpy, scipy.sparse
in SMPL's model files) become inert stand-ins that keep the state they are given.
"""

from __future__ import annotations

import codecs
import collections
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import SourceError

_reconstruct = np.zeros(1).__reduce__()[0]
_scalar = np.float64(0.0).__reduce__()[0]


class StandIn:
    """Keeps what a pickle says about an object of another library."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})


def _encoded(text: str, encoding: str = "utf-8") -> bytes:
    """`codecs.encode` for text only: pickles of protocol 2 hold bytes as latin-1 text."""
    return codecs.encode(str(text), str(encoding)) if encoding in ("latin1", "utf-8", "ascii") else b""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): _encoded,
    ("builtins", "set"): set, ("builtins", "frozenset"): frozenset, ("builtins", "slice"): slice,
    ("__builtin__", "set"): set, ("builtins", "object"): object, ("__builtin__", "object"): object,
    ("collections", "OrderedDict"): collections.OrderedDict, ("builtins", "complex"): complex,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = np.zeros(1).__reduce_ex__(5)[0]
_WRAPPERS = ("chumpy.", "scipy.sparse.")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module.startswith(_WRAPPERS):
            return StandIn
        if (module, name) in (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")):
            return _reconstructed
        raise pickle.UnpicklingError(f"it names {module}.{name}; loading that could run code, so nothing was loaded")


def _reconstructed(kind: Any, base: Any, state: Any) -> Any:
    """`copyreg._reconstructor` for stand-ins alone."""
    if kind is not StandIn:
        raise pickle.UnpicklingError(f"it rebuilds {kind!r} by copyreg; only wrapped arrays are expected there")
    return StandIn.__new__(StandIn)


def load_pickle(path: Path) -> Any:
    """The content of a pickle of arrays, numbers, text and containers, written by Python 2 or 3.

    Raises:
        SourceError: Missing, damaged, or it names anything else (the name is told; nothing was executed).
    """
    if not path.is_file():
        raise SourceError(f"{path} is missing; expected a pickle of arrays")
    return _loads(path.read_bytes(), path)


def load_npy_dict(path: Path) -> dict[str, Any]:
    """The dict that `numpy.save` wrote as an object array of one element.

    Raises:
        SourceError: As `load_pickle`, or the file holds no dict.
    """
    if not path.is_file():
        raise SourceError(f"{path} is missing; expected a .npy file that holds a dict")
    data = path.read_bytes()
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](file)  # type: ignore[index]
    except (ValueError, KeyError) as error:
        raise SourceError(f"{path} is no .npy file: {error}") from error
    if not dtype.hasobject:
        raise SourceError(f"{path} holds an array {shape} of {dtype}; expected a dict")
    content = _loads(data[file.tell():], path)
    content = content.item() if isinstance(content, np.ndarray) and content.size == 1 else content
    if not isinstance(content, dict):
        raise SourceError(f"{path} holds {type(content).__name__}; expected a dict")
    return content


def _loads(data: bytes, path: Path) -> Any:
    try:
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle fails in any way its opcodes happen to
        raise SourceError(f"{path} cannot be read as a pickle of arrays: {error}") from error


def plain_array(value: Any) -> NDArray[np.float64]:
    """An array as float64, taken out of its wrapper if it has one; sparse ones become dense.

    Raises:
        SourceError: Neither.
    """
    if isinstance(value, StandIn):
        inside = value.__dict__
        if "x" in inside:  # chumpy
            return plain_array(inside["x"])
        if {"data", "indices", "indptr"} <= inside.keys():  # compressed sparse columns
            rows, columns = map(int, inside["_shape"] if "_shape" in inside else inside["shape"])
            dense = np.zeros((rows, columns))
            column = np.repeat(np.arange(columns), np.diff(inside["indptr"]))
            dense[np.asarray(inside["indices"]), column] = inside["data"]
            return dense
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise SourceError(f"expected an array of numbers, got {type(value).__name__}") from error


def entry(content: Any, key: str, path: Path) -> Any:
    """`content[key]` of a dict.

    Raises:
        SourceError: Missing; names the keys that are there.
    """
    if not isinstance(content, dict) or key not in content:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise SourceError(f"{path} lacks '{key}'; it holds {found or 'nothing'}")
    return content[key]
