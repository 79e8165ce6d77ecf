"""The .msg and .srv texts: documented field by field, and equal to what the Python side believes."""

from __future__ import annotations

import dataclasses
import enum
import re
from pathlib import Path

import pytest
from rosbags.typesys import get_types_from_msg

from human_scene_ros import scene
from human_scene_ros.fusion.extrinsics import ExtrinsicsStatus
from human_scene_ros.fusion.types import DetectionStatus, PersonStatus
from human_scene_ros.sources import fusion_fields, message_fields

from helpers import REPOSITORY

FILES = sorted([*(REPOSITORY / "msg").glob("*.msg"), *(REPOSITORY / "srv").glob("*.srv")])
LINE = re.compile(r"^(?P<type>[\w/]+(?:<=\d+)?(?P<array>\[(?:<=)?\d*\])?)\s+(?P<name>\w+)(?:=(?P<value>\S+))?"
                  r"(?:\s+#\s*(?P<comment>\S.*))?$")
UNIT = re.compile(r"(^|[\s(])(m|m\^2|m/s|rad|px|s|Hz|MiB|factor|standard deviations)\b|0\.\.1")


@dataclasses.dataclass(frozen=True)
class Line:
    """One field or constant of an interface file."""

    type: str
    array: str | None
    name: str
    value: str | None
    comment: str | None


def lines(path: Path) -> list[Line]:
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        if text.strip() in ("", "---") or text.startswith("#"):
            continue
        match = LINE.match(text)
        assert match, f"{path.name}: cannot read '{text}'"
        found.append(Line(**match.groupdict()))
    return found


def constants(path: Path, prefix: str) -> dict[str, int]:
    return {x.name.removeprefix(prefix): int(x.value) for x in lines(path)
            if x.value is not None and x.name.startswith(prefix)}


def test_the_interfaces_are_the_ones_that_cmake_builds():
    text = (REPOSITORY / "CMakeLists.txt").read_text()
    assert sorted(re.findall(r"(?:msg|srv)/\w+\.(?:msg|srv)", text)) == sorted(
        str(p.relative_to(REPOSITORY)) for p in FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_field_says_its_unit_frame_and_length(path: Path):
    for line in lines(path):
        where = f"{path.name}: {line.name}"
        assert line.comment, f"{where}: no comment"
        if line.value is not None:
            continue
        if line.type.startswith("float"):
            assert UNIT.search(line.comment), f"{where}: no unit in '{line.comment}'"
        if line.array:
            assert "length" in line.comment.lower(), f"{where}: no length in '{line.comment}'"
        if line.type.startswith("geometry_msgs/") or line.name in ("joints", "joint_covariance", "transl"):
            assert re.search(r"header\.frame_id|world_frame", line.comment), f"{where}: no frame in '{line.comment}'"
        fixed = re.match(r"\[(\d+)\]", line.array or "")
        if fixed:
            assert f"length {fixed[1]}" in line.comment, f"{where}: '{line.comment}' does not say length {fixed[1]}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_rosbags_parses_the_text(path: Path):
    for part in path.read_text(encoding="utf-8").split("\n---\n"):
        get_types_from_msg(part, f"human_scene_ros/msg/{path.stem}")


@pytest.mark.parametrize("path", [p for p in FILES if "Array" in p.stem], ids=lambda p: p.stem)
def test_array_messages_have_a_header(path: Path):
    first = next(x for x in lines(path) if x.value is None)
    assert (first.type, first.name) == ("std_msgs/Header", "header")


@pytest.mark.parametrize(
    ("file", "prefix", "kind"),
    [
        ("SmplxBody", "TRACK_", scene.TrackState),
        ("SmplxBodyArray", "STATUS_", scene.TrackingStatus),
        ("SceneStatus", "SCALE_", scene.ScaleSource),
        ("SceneStatus", "WORLD_", scene.WorldSource),
        ("FusedPerson", "STATE_", scene.TrackState),
        ("FusionAssociations", "STATUS_", DetectionStatus),
    ],
)
def test_constants_equal_the_enumerations(file: str, prefix: str, kind: type[enum.IntEnum]):
    assert constants(REPOSITORY / f"msg/{file}.msg", prefix) == {member.name: member.value for member in kind}


def test_constants_equal_those_of_message_fields():
    in_message = {x.name: int(x.value) for x in lines(REPOSITORY / "msg/SmplxBody.msg") if x.value is not None}
    in_python = {name: value for name, value in vars(message_fields).items()
                 if re.match(r"(MODEL|GENDER|VALID|JOINT)_", name) and isinstance(value, int)}
    assert {"MODEL_OPEN", "VALID_BODY", "JOINT_VISIBLE"} <= set(in_python)
    assert in_python == {name: in_message[name] for name in in_python}
    assert set(message_fields.JOINT_COUNTS) == {v for n, v in in_message.items() if n.startswith("JOINT_SET_")}


def test_flag_constants_are_separate_bits():
    for prefix in ("VALID_", "JOINT_(?!SET_)"):
        values = [int(x.value) for x in lines(REPOSITORY / "msg/SmplxBody.msg")
                  if x.value is not None and re.match(prefix, x.name)]
        assert sorted(values) == [1 << i for i in range(len(values))]


def test_status_report_has_the_fields_of_the_message():
    names = [x.name for x in lines(REPOSITORY / "msg/SceneStatus.msg") if x.value is None]
    assert sorted(f.name for f in dataclasses.fields(message_fields.StatusReport)) == sorted(set(names) - {"header"})


def test_constants_of_the_fusion_equal_the_enumerations():
    person = constants(REPOSITORY / "msg/FusedPerson.msg", "STATUS_")
    assert person == {member.name: member.value for member in PersonStatus if member}
    camera = constants(REPOSITORY / "msg/CameraExtrinsics.msg", "STATUS_")
    assert camera == {member.name: member.value for member in ExtrinsicsStatus} | {
        "UNKNOWN": fusion_fields.EXTRINSICS_UNKNOWN}
    sources = constants(REPOSITORY / "msg/CameraExtrinsics.msg", "SOURCE_")
    assert sources == {name: getattr(fusion_fields, f"SOURCE_{name}") for name in sources}


def test_formats_of_save_map_are_numbered_as_designed():
    assert constants(REPOSITORY / "srv/SaveMap.srv", "FORMAT_") == {"PLY": 0, "PCD": 1, "NPZ": 2}
