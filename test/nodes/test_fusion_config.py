"""Parameters of the fusion node: a class per rig, refused names, and the shipped file."""

from __future__ import annotations

import pytest
import yaml

from human_scene_ros.errors import ConfigError
from human_scene_ros.nodes.fusion_config import camera_config, config_for, time_offset_s
from human_scene_ros.nodes.fusion_people import fusion_config
from human_scene_ros.nodes.parameters import config_from_flat, flat_from_config, parameters_of

from helpers import REPOSITORY

CAMERAS = ("front", "left", "right", "back")


def flattened(values: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def test_every_camera_is_a_group_of_parameters():
    config = config_from_flat(config_for(("a", "b")), {
        "cameras": ["a", "b"], "a.extrinsics_source": "file", "sync.time_offsets.b": -0.02, "sync.timeout": 0.5})
    assert camera_config(config, "a").extrinsics_source == "file"
    assert camera_config(config, "b").extrinsics_source == "tf"
    assert (time_offset_s(config, "a"), time_offset_s(config, "b")) == (0.0, -0.02)
    assert config.sync.timeout == 0.5


def test_a_camera_that_is_not_named_has_no_parameters():
    with pytest.raises(ConfigError, match=r"unknown parameter\(s\) \['left.bodies_topic'\]; known: .*'front.bodies"):
        config_from_flat(config_for(("front",)), {"left.bodies_topic": "x"})


@pytest.mark.parametrize(("names", "text"), [
    (("front", "front"), "a name is given twice"),
    (("sync",), "'sync' cannot be a camera's name"),
    (("front/left",), "'front/left' cannot be a camera's name; expected letters, digits and _"),
])
def test_names_that_cannot_be_are_refused(names, text):
    with pytest.raises(ConfigError, match=text):
        config_for(names)


def test_every_parameter_has_a_text_a_range_and_a_valid_default():
    for parameter in parameters_of(config_for(CAMERAS)):
        assert parameter.text.endswith((".", ")")), parameter.name
        assert parameter.converted(parameter.default) == parameter.default
        if parameter.kind in (int, float):
            assert parameter.low is not None and parameter.high is not None, f"{parameter.name} has no range"


def test_defaults_are_those_of_the_library():
    from human_scene_ros.fusion.config import FusionConfig
    from human_scene_ros.fusion.sync import SyncConfig
    from human_scene_ros.nodes.parameters import config_from_flat as make

    # All but two: distances, until they are measured, and rays are expected to be those of the weights that ship.
    assert fusion_config(make(config_for(CAMERAS), {})) == FusionConfig(depth_fraction=0.15, sure_score=0.9)
    sync = make(config_for(CAMERAS), {}).sync
    assert (round(1e9 * sync.window), round(1e9 * sync.timeout), round(1e9 * sync.dead_after), sync.min_cameras) == (
        SyncConfig().window_ns, SyncConfig().timeout_ns, SyncConfig().dead_after_ns, SyncConfig().min_cameras)


def test_the_shipped_file_holds_the_defaults_and_reconstructor_parameters_that_exist():
    from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig

    sections = yaml.safe_load((REPOSITORY / "config" / "multi_camera.yaml").read_text())
    values = flattened(sections["/**/human_scene_fusion"]["ros__parameters"])
    expected = flat_from_config(config_from_flat(config_for(CAMERAS), {"cameras": list(CAMERAS)}))
    assert {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()} == expected
    camera = config_from_flat(ReconstructorConfig, flattened(sections["/**/human_scene"]["ros__parameters"]))
    assert camera.camera_pose == "static" and not camera.map.enabled


def test_the_shipped_file_lets_markers_show_people():
    pytest.importorskip("rclpy")
    from human_scene_ros.nodes.markers_node import MarkersConfig

    sections = yaml.safe_load((REPOSITORY / "config" / "multi_camera.yaml").read_text())
    values = flattened(sections["/**/human_scene_markers"]["ros__parameters"])
    assert config_from_flat(MarkersConfig, values).source == "people"
