"""Frozen dataclasses as JSON and back, by their annotations.

    str, int, float, bool, None    as they are; floats must be finite
    Literal[…]                     one of the values
    T | None                       T, or null
    tuple[T, …]                    an array
    Mapping[str, T]                an object with any keys
    a dataclass                    an object with one key for each field

A field may be written under another key: ``field(metadata={"key": "from"})``. A field with
``metadata={"optional": True}`` may be missing and then takes its default.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeVar, cast, get_args, get_origin

from attacks.errors import AttackError, AuditError

T = TypeVar("T")
_SCALARS: Final[Mapping[type, tuple[type, ...]]] = {
    str: (str,),
    bool: (bool,),
    int: (int,),
    float: (int, float),
}


def to_json(value: Any) -> Any:
    """``value`` as dictionaries, lists and scalars; TypeError for what JSON cannot hold."""
    if dataclasses.is_dataclass(value):
        kind: Any = type(value)
        return {key: to_json(getattr(value, f.name)) for key, f in _fields(kind).items()}
    match value:
        case None | str() | int() | float():
            return value
        case Path():
            return str(value)
        case Mapping():
            return {key: to_json(each) for key, each in value.items()}
        case list() | tuple():
            return [to_json(each) for each in value]
    raise TypeError(f"JSON has no place for {type(value).__name__}")


def from_json(kind: type[T], value: Any, where: str = "") -> T:
    """The ``kind`` that ``to_json`` wrote as ``value``.

    Raises AuditError, which names the path below ``where``, for a key that is missing or unknown,
    a value of another type, and whatever the dataclass itself refuses.
    """
    return cast(T, _read(kind, value, where))


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    if origin is Literal:
        if not any(value == each and type(value) is type(each) for each in arguments):
            allowed = ", ".join(map(str, arguments))
            raise AuditError(
                f"{where}: expected {'one of ' * (len(arguments) > 1)}{allowed}, got {value!r}"
            )
        return value
    if origin is types.UnionType:
        (wanted,) = (each for each in arguments if each is not types.NoneType)
        return None if value is None else _read(wanted, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            _refuse(value, where)
        return tuple(
            _read(arguments[0], each, f"{where}[{index}]") for index, each in enumerate(value)
        )
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            _refuse(value, where)
        return {key: _read(arguments[1], each, f"{where}.{key}") for key, each in value.items()}
    if not isinstance(value, _SCALARS[kind]) or (isinstance(value, bool) and kind is not bool):
        _refuse(value, where)
    if isinstance(value, float) and not math.isfinite(value):
        raise AuditError(f"{where}: expected a finite number, got {value}")
    return value


def _record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        _refuse(value, where or "the document")
    at = f"{where}." if where else ""
    hints, fields, found = _hints(kind), _fields(kind), {}
    for key, field in fields.items():
        if key in value:
            found[field.name] = _read(hints[field.name], value[key], f"{at}{key}")
        elif not field.metadata.get("optional"):
            raise AuditError(f"{at}{key}: missing")
    unknown = sorted(value.keys() - fields.keys())
    if unknown:
        raise AuditError(f"{at}{unknown[0]}: unknown, expected {', '.join(fields)}")
    try:
        return kind(**found)
    except AttackError as error:
        raise AuditError(f"{where}: {error}" if where else str(error)) from error


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@functools.cache
def _fields(kind: Any) -> Mapping[str, dataclasses.Field[Any]]:
    """The fields of a dataclass by their keys in JSON."""
    return {field.metadata.get("key", field.name): field for field in dataclasses.fields(kind)}


def _refuse(value: Any, where: str) -> NoReturn:
    raise AuditError(f"{where}: has the wrong type, {type(value).__name__}")
