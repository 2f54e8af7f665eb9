"""The one written form of a frozen dataclass: JSON beside arrays, so that its hash is a name.

A dataclass becomes an object with a key for each field and its class under "kind". An array is
kept beside the JSON under its path, ``plan.graph.nodes.1.bias`` for instance. Every field is
written, so nothing that a plan is made of can be left out of its digest. Reading checks each
value against the type of its field; constructors check what their class demands.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import GenericAlias, NoneType, UnionType
from typing import Any, Final, TypeAlias, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from he_infer.errors import FileFormatError

FORMAT: Final = "he-infer plan"
VERSION: Final = 5
_MATRIX_PARTS: Final = {"data": np.float64, "indices": np.int32, "indptr": np.int64}

Header: TypeAlias = dict[str, Any]
Tensors: TypeAlias = dict[str, NDArray[Any]]


def encode(plan: object) -> tuple[Header, Tensors]:
    """The header and the arrays of a plan; raises FileFormatError for what cannot be written."""
    tensors: Tensors = {}
    return {"format": FORMAT, "version": VERSION, "plan": _encode(plan, "plan", tensors)}, tensors


def checksum(header: Header, tensors: Tensors) -> str:
    """SHA-256 over the header and every array, in a fixed order, in hexadecimal."""
    sha = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        sha.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def digest(plan: object) -> str:
    """The checksum that names a plan."""
    return checksum(*encode(plan))


def decode(hint: Any, data: Any, path: str, tensors: Tensors) -> Any:
    """The value of type ``hint`` that was written as ``data`` under ``path``.

    Raises TypeError for data of another type, LookupError or ValueError for arrays that are
    missing or shaped otherwise, and what the constructors raise.
    """
    arguments = get_args(hint)
    match get_origin(hint) or hint:
        case origin if origin is UnionType:
            if data is None and NoneType in arguments:
                return None
            kind = data["kind"] if isinstance(data, dict) else sparse.csr_array.__name__
            (member,) = (one for one in arguments if one.__name__ == kind)
            return decode(member, data, path, tensors)
        case origin if origin is np.ndarray:
            array = tensors[path]
            _require(data is None and array.dtype == get_args(arguments[1])[0], hint, path)
            return array
        case origin if origin is sparse.csr_array:
            parts = tuple(tensors[f"{path}.{part}"] for part in _MATRIX_PARTS)
            matrix = sparse.csr_array(parts, shape=tuple(data))
            matrix.check_format(full_check=True)
            return matrix
        case origin if origin is tuple:
            _require(isinstance(data, list), hint, path)
            hints = arguments[:1] * len(data) if Ellipsis in arguments else arguments
            items = enumerate(zip(hints, data, strict=True))
            return tuple(decode(h, item, f"{path}.{i}", tensors) for i, (h, item) in items)
        case origin if origin is Mapping:
            pairs = GenericAlias(tuple, (GenericAlias(tuple, arguments), ...))
            return dict(decode(pairs, data, path, tensors))
        case type() as origin if is_dataclass(origin):
            types = _field_types(origin)
            found = isinstance(data, dict) and {*types, "kind"} == data.keys()
            _require(found and data["kind"] == origin.__name__, hint, path)
            values = {n: decode(t, data[n], f"{path}.{n}", tensors) for n, t in types.items()}
            return origin(**values)
    # JSON has one kind of number: a float without a fraction may have been written as an integer.
    _require(type(data) is hint or (hint is float and type(data) is int), hint, path)
    return data


def _encode(value: Any, path: str, tensors: Tensors) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case np.ndarray():
            tensors[path] = value
            return None
        case sparse.csr_array():
            ordered = sparse.csr_array(value)
            ordered.sort_indices()
            for part, dtype in _MATRIX_PARTS.items():
                tensors[f"{path}.{part}"] = getattr(ordered, part).astype(dtype)
            return list(value.shape)
        case tuple():
            return [_encode(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
        case Mapping():
            return [_encode(pair, f"{path}.{i}", tensors) for i, pair in enumerate(value.items())]
    if not is_dataclass(value):
        raise FileFormatError(f"a plan cannot hold a {type(value).__name__} ({path})")
    names = [field.name for field in fields(value)]
    written = {n: _encode(getattr(value, n), f"{path}.{n}", tensors) for n in names}
    return {"kind": type(value).__name__, **written}


@cache
def _field_types(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _require(holds: bool, hint: Any, path: str) -> None:
    if not holds:
        raise TypeError(f"{path} is no {getattr(hint, '__name__', hint)}")
