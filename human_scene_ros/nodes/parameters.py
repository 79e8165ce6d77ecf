"""ROS parameters from a frozen dataclass: every field is declared with its text, range and read-only flag.

Nested dataclasses become dotted names: `config.input.queue` is the parameter `input.queue`. The dataclass is
the only place where a parameter is defined; the YAML file in `config/` is checked against it.

    @dataclasses.dataclass(frozen=True)
    class InputConfig:
        queue: int = option(2, "Images waiting in the middleware.", low=1, high=1000)

    parameters = NodeParameters(node, ReconstructorConfig)
    parameters.config.input.queue
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from human_scene_ros.errors import ConfigError

if TYPE_CHECKING:  # the functions above `NodeParameters` serve tests and documentation without ROS
    from rclpy.node import Node

T = TypeVar("T")

# Declared by rclpy or by the QoS overrides, so never ours to refuse.
FOREIGN = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def option(default: Any, text: str, *, low: float | None = None, high: float | None = None,
           dynamic: bool = False) -> Any:
    """A dataclass field that is a parameter.

    Args:
        default: Its value when nobody sets it.
        text: One sentence with the unit; shown by `ros2 param describe`.
        low: Smallest allowed number.
        high: Largest allowed number.
        dynamic: True if it may be set while the node runs.
    """
    return dataclasses.field(
        default=default, metadata={"text": text, "low": low, "high": high, "dynamic": dynamic})


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One leaf of a configuration dataclass; `kind` is bool, int, float, str or a tuple of strings."""

    name: str
    kind: Any
    choices: tuple[str, ...]
    default: Any
    text: str
    low: float | None
    high: float | None
    dynamic: bool

    def converted(self, value: Any) -> Any:
        """`value` as this parameter's type; raises `ConfigError` with the value, range and meaning."""
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if self.kind is tuple:
            if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
                raise ConfigError(f"{self.name} = {value!r}: expected a list of strings ({self.text})")
            return tuple(value)
        if not isinstance(value, self.kind) or (isinstance(value, bool) and self.kind is not bool):
            raise ConfigError(f"{self.name} = {value!r} is of type {type(value).__name__}; expected "
                              f"{self.kind.__name__} ({self.text})")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.name} = {value!r}: expected one of {list(self.choices)} ({self.text})")
        if self.kind in (int, float):
            low = -math.inf if self.low is None else self.low
            high = math.inf if self.high is None else self.high
            if not low <= value <= high:  # NaN fails too
                raise ConfigError(f"{self.name} = {value}: out of range, expected {low:g} to {high:g} "
                                  f"({self.text})")
        return value


def parameters_of(config_class: type, prefix: str = "") -> Iterator[Parameter]:
    """The parameters of a dataclass in the order of its fields, nested ones with dotted names."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        hint, name = hints[field.name], prefix + field.name
        if dataclasses.is_dataclass(hint):
            yield from parameters_of(typing.cast(type, hint), name + ".")
            continue
        literal = typing.get_origin(hint) is typing.Literal
        kind = str if literal else (typing.get_origin(hint) or hint)
        meta = field.metadata
        yield Parameter(name, kind, typing.get_args(hint) if literal else (), field.default,
                        meta["text"], meta["low"], meta["high"], meta["dynamic"])


def config_from_flat(config_class: type[T], values: Mapping[str, Any]) -> T:
    """Build `config_class` from dotted names; absent ones keep their defaults.

    Raises:
        ConfigError: Unknown names (with the known ones), wrong types, values out of range: all in one text.
    """
    known = {p.name: p for p in parameters_of(config_class)}
    problems = []
    unknown = sorted(set(values) - set(known))
    if unknown:
        problems.append(f"unknown parameter(s) {unknown}; known: {sorted(known)}")
    converted = {}
    for name in sorted(set(values) & set(known)):
        try:
            converted[name] = known[name].converted(values[name])
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))
    return _build(config_class, converted, "")


def flat_from_config(config: Any) -> dict[str, Any]:
    """The inverse of `config_from_flat`: dotted name to value."""
    values = {}
    for parameter in parameters_of(type(config)):
        value: Any = config
        for part in parameter.name.split("."):
            value = getattr(value, part)
        values[parameter.name] = value
    return values


def _build(config_class: type[T], values: Mapping[str, Any], prefix: str) -> T:
    hints = typing.get_type_hints(config_class)
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        name = prefix + field.name
        if dataclasses.is_dataclass(hints[field.name]):
            arguments[field.name] = _build(hints[field.name], values, name + ".")
        elif name in values:
            arguments[field.name] = values[name]
    return config_class(**arguments)


class NodeParameters(Generic[T]):
    """Declares the fields of `config_class` on `node` and keeps `config` up to date.

    Args:
        node: The node; its command line and file values are checked before anything is declared.
        config_class: Frozen dataclass made of `option` fields.
        on_change: Called with the new configuration after a dynamic parameter was set.

    Raises:
        ConfigError: A value from the command line or a file is unknown, of the wrong type or out of range.
    """

    def __init__(self, node: Node, config_class: type[T],
                 on_change: Callable[[T], None] | None = None) -> None:
        from rclpy.parameter import Parameter as RosParameter

        self._config_class, self._on_change = config_class, on_change
        # rclpy accepts unknown overrides silently and has no public way to list them.
        overrides = node._parameter_overrides
        given = {name: p.value for name, p in overrides.items() if not name.startswith(FOREIGN)}
        for parameter in parameters_of(config_class):
            if parameter.kind is tuple and parameter.name in given and given[parameter.name] is None:
                del overrides[parameter.name]  # [] in a file arrives without type and value
                given[parameter.name] = ()
        self.config: T = config_from_flat(config_class, given)
        values = flat_from_config(self.config)
        for parameter in parameters_of(config_class):
            if parameter.kind is float and parameter.name in overrides:
                # `-p tf.time_offset:=1` arrives as an integer, which rclpy refuses for a float
                overrides[parameter.name] = RosParameter(parameter.name, value=values[parameter.name])
            value = values[parameter.name]
            node.declare_parameter(parameter.name, list(value) if parameter.kind is tuple else value,
                                   _descriptor(parameter))
        node.add_on_set_parameters_callback(self._on_set)

    def _on_set(self, changed: list[Any]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        values = flat_from_config(self.config)
        values |= {p.name: p.value for p in changed if p.name in values}
        try:
            self.config = config_from_flat(self._config_class, values)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if self._on_change is not None:
            self._on_change(self.config)
        return SetParametersResult(successful=True)


def _descriptor(parameter: Parameter) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(name=parameter.name, description=parameter.text,
                                     read_only=not parameter.dynamic)
    if parameter.choices:
        descriptor.additional_constraints = "one of " + ", ".join(parameter.choices)
    if parameter.kind is float and (parameter.low is not None or parameter.high is not None):
        descriptor.floating_point_range = [FloatingPointRange(
            from_value=float(-1e300 if parameter.low is None else parameter.low),
            to_value=float(1e300 if parameter.high is None else parameter.high))]
    if parameter.kind is int and (parameter.low is not None or parameter.high is not None):
        descriptor.integer_range = [IntegerRange(
            from_value=int(-(2**62) if parameter.low is None else parameter.low),
            to_value=int(2**62 if parameter.high is None else parameter.high), step=1)]
    return descriptor
