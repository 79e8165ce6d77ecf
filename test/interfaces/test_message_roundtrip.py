"""Our messages through independent implementations: rclpy, rosbags and mcap-ros2-support must agree on every field."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer

from human_scene_ros.sources.message_definitions import new_typestore

rclpy_serialization = pytest.importorskip("rclpy.serialization", reason="needs rclpy; run through ./env.sh")
messages = pytest.importorskip("human_scene_ros.msg", reason="needs the built messages; run through ./env.sh")

NAMES = ["SmplxBody", "SmplxBodyArray", "SceneStatus", "FusedPersonArray", "CameraExtrinsicsArray",
         "FusionAssociations"]
STORE = new_typestore()
SIZES = {"float32": np.float32, "float64": np.float64, "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32,
         "uint64": np.uint64, "int32": np.int32}


def random_message(rng: np.random.Generator, msgtype: str) -> Any:
    """A rosbags message of `msgtype` with every field set to a random value; arrays have 0 to 3 elements."""
    values = {}
    for name, (kind, detail) in STORE.fielddefs[msgtype][1]:
        values[name] = _random_value(rng, kind.name, detail)
    return STORE.types[msgtype](**values)


def _random_value(rng: np.random.Generator, kind: str, detail: Any) -> Any:
    if kind == "BASE":
        return _random_scalar(rng, detail[0])
    if kind == "NAME":
        return random_message(rng, detail)
    element, length = detail
    n = length if kind == "ARRAY" else int(rng.integers(0, 4))
    if element[0].name == "BASE" and element[1][0] in SIZES:
        return np.array([_random_scalar(rng, element[1][0]) for _ in range(n)], SIZES[element[1][0]])
    return [_random_value(rng, element[0].name, element[1]) for _ in range(n)]


def _random_scalar(rng: np.random.Generator, name: str) -> Any:
    if name == "string":
        return "".join(chr(c) for c in rng.integers(ord("a"), ord("z"), int(rng.integers(0, 9))))
    if name == "bool":
        return bool(rng.integers(0, 2))
    if name.startswith("float"):
        return float(np.float32(rng.normal()))
    if name == "int32":  # seconds of a stamp
        return int(rng.integers(0, 2**31))
    return int(rng.integers(0, np.iinfo(SIZES[name]).max, dtype=np.uint64, endpoint=True))


def plain(value: Any) -> Any:
    """Any implementation's message as nested dicts, lists and numbers; field order is kept, constants left out."""
    if hasattr(value, "get_fields_and_field_types"):  # rclpy
        names = list(value.get_fields_and_field_types())
    elif hasattr(value, "__dataclass_fields__"):  # rosbags
        names = list(value.__dataclass_fields__)
    elif type(value).__module__.startswith("mcap_ros2"):
        names = list(value.__slots__)
    else:
        value = value.tolist() if hasattr(value, "tolist") else value
        value = list(value) if isinstance(value, (bytes, bytearray)) else value
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value
    return {name: plain(getattr(value, name)) for name in names if name == name.lower() and name != "__msgtype__"}


@pytest.mark.parametrize("name", NAMES)
def test_generated_class_has_the_fields_of_the_text(name: str):
    generated = list(getattr(messages, name).get_fields_and_field_types())
    assert generated == [field for field, _ in STORE.fielddefs[f"human_scene_ros/msg/{name}"][1]]


@pytest.mark.parametrize("name", ["SmplxBody", "SmplxBodyArray", "SceneStatus", "FusedPerson", "CameraExtrinsics",
                                  "FusionAssociations"])
def test_constants_of_the_class_are_those_of_the_text(name: str):
    wanted = {constant: value for constant, _, value in STORE.fielddefs[f"human_scene_ros/msg/{name}"][0]}
    assert wanted, "the message has constants"
    assert {constant: getattr(getattr(messages, name), constant) for constant in wanted} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_type_hash_of_rosbags_is_the_installed_one(name: str):
    """RIHS01 (REP-2011) covers names, types and order of all fields, nested ones too."""
    from ament_index_python.packages import get_package_share_directory

    installed = Path(get_package_share_directory("human_scene_ros")) / "msg" / f"{name}.json"
    hashes = {x["type_name"]: x["hash_string"] for x in json.loads(installed.read_text())["type_hashes"]}
    msgtype = f"human_scene_ros/msg/{name}"
    assert STORE.hash_rihs01(msgtype) == hashes[msgtype]


@pytest.mark.parametrize("name", NAMES)
def test_rclpy_reads_what_rosbags_writes_and_back(name: str):
    rng = np.random.default_rng(5)
    msgtype = f"human_scene_ros/msg/{name}"
    for _ in range(10):
        original = random_message(rng, msgtype)
        in_rclpy = rclpy_serialization.deserialize_message(
            bytes(STORE.serialize_cdr(original, msgtype)), getattr(messages, name))
        assert plain(in_rclpy) == plain(original)
        back = STORE.deserialize_cdr(rclpy_serialization.serialize_message(in_rclpy), msgtype)
        assert plain(back) == plain(original)


def test_mcap_reads_the_recording_without_our_definitions(tmp_path: Path):
    """mcap-ros2-support knows nothing of this package: it decodes by the schema inside the file."""
    from mcap_ros2.reader import read_ros2_messages

    rng = np.random.default_rng(6)
    originals = {name: random_message(rng, f"human_scene_ros/msg/{name}") for name in NAMES}
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for i, (name, message) in enumerate(originals.items()):
            msgtype = f"human_scene_ros/msg/{name}"
            connection = writer.add_connection(f"/{name}", msgtype, typestore=STORE)
            writer.write(connection, i + 1, bytes(STORE.serialize_cdr(message, msgtype)))
    (file,) = (tmp_path / "bag").glob("*.mcap")
    read = {m.channel.topic.removeprefix("/"): m.ros_msg for m in read_ros2_messages(str(file))}
    assert sorted(read) == sorted(NAMES)
    for name in NAMES:
        assert plain(read[name]) == plain(originals[name])


def test_field_checks_refuse_a_wrong_length():
    """Off by default in rclpy, where a short array is read past its end; the tests turn the checks on."""
    code = ("from human_scene_ros.msg import SmplxBody\nimport numpy as np\n"
            "SmplxBody().body_pose = np.zeros(62, np.float32)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            env={**os.environ, "ROS_PYTHON_CHECK_FIELDS": "1"}, timeout=60, check=False)
    assert result.returncode == 1
    assert "AssertionError" in result.stderr


def test_generated_services_and_pure_modules_live_in_one_process():
    import human_scene_ros.geometry.transform as pure
    from human_scene_ros.srv import SaveMap

    assert pure.__name__ == "human_scene_ros.geometry.transform"
    assert SaveMap.Request.FORMAT_NPZ == 2
    assert set(SaveMap.Response.get_fields_and_field_types()) == {"success", "message", "points", "bytes"}
