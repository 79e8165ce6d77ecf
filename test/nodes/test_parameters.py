"""Parameters: one dataclass defines them all; wrong values are refused with both values; the YAML file agrees."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import pytest
import yaml

from human_scene_ros.errors import ConfigError
from human_scene_ros.nodes.parameters import config_from_flat, flat_from_config, option, parameters_of
from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig

from helpers import REPOSITORY


@dataclasses.dataclass(frozen=True)
class Inner:
    gain: float = option(0.5, "Gain.", low=0.0, high=1.0, dynamic=True)
    mode: Literal["slow", "fast"] = option("slow", "Mode.")


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    count: int = option(3, "Count.", low=1, high=9)
    names: tuple[str, ...] = option((), "Names.")
    flag: bool = option(False, "Flag.")


def test_names_are_dotted_and_keep_their_order():
    assert [p.name for p in parameters_of(Outer)] == ["inner.gain", "inner.mode", "count", "names", "flag"]


def test_values_arrive_where_they_belong():
    config = config_from_flat(Outer, {"inner.gain": 1, "names": ["a", "b"], "flag": True})
    assert config == Outer(inner=Inner(gain=1.0), names=("a", "b"), flag=True)
    assert isinstance(config.inner.gain, float)
    assert config_from_flat(Outer, flat_from_config(config)) == config


@pytest.mark.parametrize(("values", "text"), [
    ({"inner.gian": 0.1}, r"unknown parameter\(s\) \['inner.gian'\]; known: .*'inner.gain'"),
    ({"inner.gain": 1.5}, r"inner.gain = 1.5: out of range, expected 0 to 1 \(Gain.\)"),
    ({"inner.gain": math.nan}, r"inner.gain = nan: out of range"),
    ({"inner.mode": "quick"}, r"inner.mode = 'quick': expected one of \['slow', 'fast'\]"),
    ({"count": 2.5}, r"count = 2.5 is of type float; expected int"),
    ({"count": True}, r"count = True is of type bool; expected int"),
    ({"count": 0}, r"count = 0: out of range, expected 1 to 9"),
    ({"flag": 1}, r"flag = 1 is of type int; expected bool"),
    ({"names": "a"}, r"names = 'a': expected a list of strings"),
])
def test_bad_values_are_refused_with_what_was_expected(values, text):
    with pytest.raises(ConfigError, match=text):
        config_from_flat(Outer, values)


def test_all_problems_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        config_from_flat(Outer, {"count": 0, "nonsense": 1, "flag": "yes"})
    assert all(word in str(caught.value) for word in ("count = 0", "nonsense", "flag = 'yes'"))


def test_every_parameter_has_a_text_and_a_valid_default():
    for parameter in parameters_of(ReconstructorConfig):
        assert parameter.text.endswith((".", ")")), parameter.name
        assert parameter.converted(parameter.default) == parameter.default
        if parameter.kind in (int, float):
            assert parameter.low is not None and parameter.high is not None, f"{parameter.name} has no range"


def flattened(values: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


@pytest.mark.parametrize(("node", "config_class"), [
    ("/**/human_scene", ReconstructorConfig), ("/**/human_scene_markers", "markers")])
def test_the_shipped_file_holds_exactly_the_defaults(node, config_class):
    if config_class == "markers":
        pytest.importorskip("rclpy")
        from human_scene_ros.nodes.markers_node import MarkersConfig as config_class  # noqa: N813
    text = (REPOSITORY / "config" / "reconstructor.yaml").read_text()
    values = flattened(yaml.safe_load(text)[node]["ros__parameters"])
    expected = flat_from_config(config_class())
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()} == expected


@pytest.mark.ros
def test_node_parameters_refuse_convert_and_follow():
    import rclpy
    from rclpy.parameter import Parameter

    from human_scene_ros.nodes.parameters import NodeParameters

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=31)
    seen = []
    try:
        node = rclpy.create_node("p", context=context, parameter_overrides=[
            Parameter("inner.gain", value=1), Parameter("use_sim_time", value=False)])
        parameters = NodeParameters(node, Outer, seen.append)
        assert parameters.config.inner.gain == 1.0  # an integer from the command line
        answers = node.set_parameters([Parameter("inner.gain", value=0.25), Parameter("inner.gain", value=7.0),
                                       Parameter("count", value=4)])
        assert [a.successful for a in answers] == [True, False, False]
        assert "7.0" in answers[1].reason and "read-only" in answers[2].reason
        assert parameters.config == Outer(inner=Inner(gain=0.25)) and seen == [parameters.config]
        described = node.describe_parameter("inner.gain")
        assert described.description == "Gain." and described.floating_point_range[0].to_value == 1.0
        node.destroy_node()
        bad = rclpy.create_node("q", context=context, parameter_overrides=[Parameter("coumt", value=1)])
        with pytest.raises(ConfigError, match="unknown.*coumt.*known.*count"):
            NodeParameters(bad, Outer)
        bad.destroy_node()
    finally:
        rclpy.shutdown(context=context)
