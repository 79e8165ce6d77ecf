"""Frozen dataclass configurations from plain mappings: strict keys, strict types, nested."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from human_scene_ros.errors import ConfigError

T = TypeVar("T")


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from `values`; keys that are absent keep their defaults.

    Args:
        cls: A dataclass; fields that are dataclasses take nested mappings.
        values: Field name to value. Lists become tuples, integers become floats where the field
            is a float.
        where: Dotted path of `cls` in the whole configuration, for error texts.

    Raises:
        ConfigError: Unknown key (names the known ones), wrong type, or what `__post_init__` rejects.
    """
    path = where or cls.__name__
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"{path}: unknown key(s) {unknown}; known keys: {sorted(fields)}")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _convert(hints[name], value, f"{path}.{name}") for name, value in values.items()})


def to_mapping(config: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`: nested plain dicts, tuples as lists (JSON, YAML)."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        return value

    return plain(config)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} = {value!r}: expected a mapping of {hint.__name__} keys")
        return from_mapping(hint, value, path)
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"{path} = {value!r}: expected one of {list(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} = {value!r}: expected a list")
        variadic = len(arguments) == 2 and arguments[1] is Ellipsis
        if not variadic and len(value) != len(arguments):
            raise ConfigError(f"{path} = {value!r}: expected {len(arguments)} values, got {len(value)}")
        kinds = [arguments[0]] * len(value) if variadic else arguments
        return tuple(_convert(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if type(None) in arguments:
        if value is None:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise ConfigError(f"{path} = {value!r}: expected {hint.__name__}, got {type(value).__name__}")
    return value
