"""Every message <-> array line of the nodes; the only home of sec/nanosec and of quaternions as xyzw.

Outgoing: `sources.message_fields` says what a message contains (plain nested dicts, shared with the bag
writer); `fill` puts such a dict into an rclpy message. It assigns whole arrays as `array.array`, the only
type that rclpy takes at once, and checks every length, because rclpy reads past the end of short ones.

Incoming: images become `CameraFrame`s, bodies `BodyView`s, transforms matrices.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.errors import MessageError
from human_scene_ros.geometry.transform import apply
from human_scene_ros.nodes.diagnostics import Report
from human_scene_ros.nodes.markers import BodyView
from human_scene_ros.scene import CameraFrame
from human_scene_ros.sources import message_fields
from human_scene_ros.sources.calibration import Calibration

Matrix = NDArray[np.float64]

# ROS type of an element -> (numpy dtype, array.array typecode)
_NUMBERS = {"float": ("f4", "f"), "double": ("f8", "d"), "int8": ("i1", "b"), "uint8": ("u1", "B"),
            "octet": ("u1", "B"), "int16": ("i2", "h"), "uint16": ("u2", "H"), "int32": ("i4", "i"),
            "uint32": ("u4", "I"), "int64": ("i8", "q"), "uint64": ("u8", "Q")}
_FIXED = re.compile(r"^(?P<element>[\w/]+)\[(?P<length>\d+)\]$")
_SEQUENCE = re.compile(r"^sequence<(?P<element>[\w/<>]+?)(?:,\s*(?P<bound>\d+))?>$")


# --- out: dicts to messages --------------------------------------------------------------------------------

def fill(message: Any, fields: Mapping[str, Any]) -> Any:
    """Put `fields` into `message` and return it; fields that are not named keep their defaults.

    Args:
        message: A generated rclpy message (or request or response).
        fields: Field name to value. Nested messages are mappings, arrays of messages lists of mappings,
            arrays of numbers anything numpy understands. A value that is a message already is taken as it is.

    Raises:
        MessageError: An unknown field, a wrong length or a value that does not fit the field's type.
    """
    converters = _converters(message.__class__)
    for name, value in fields.items():
        if name not in converters:
            raise MessageError(f"{type(message).__name__} has no field '{name}'; it has {sorted(converters)}")
        converter = converters[name]
        try:
            if converter is not None:
                setattr(message, name, converter(value))
            elif isinstance(value, Mapping):
                fill(getattr(message, name), value)
            else:
                setattr(message, name, value)
        except MessageError as error:
            raise MessageError(f"{type(message).__name__}.{name}: {error}") from error
        except (TypeError, ValueError, AssertionError, OverflowError) as error:
            ros_type = type(message).get_fields_and_field_types()[name]
            raise MessageError(f"{type(message).__name__}.{name} ({ros_type}) does not take "
                               f"{_short(value)}: {error}") from error
    return message


@functools.cache
def _converters(message_class: type) -> dict[str, Callable[[Any], Any] | None]:
    """Of each field what makes a value one that it takes; None for a nested message."""
    types = message_class.get_fields_and_field_types()  # type: ignore[attr-defined]
    return {name: _converter(ros_type) for name, ros_type in types.items()}


def _converter(ros_type: str) -> Callable[[Any], Any] | None:
    if match := _FIXED.match(ros_type):
        length = int(match["length"])
        if match["element"] in _NUMBERS:
            return functools.partial(_fixed_numbers, _NUMBERS[match["element"]][0], length)
        return functools.partial(_list_of, match["element"], length, None)
    if match := _SEQUENCE.match(ros_type):
        bound = int(match["bound"]) if match["bound"] else None
        if match["element"] in _NUMBERS:
            return functools.partial(_numbers, *_NUMBERS[match["element"]], bound)
        return functools.partial(_list_of, match["element"], None, bound)
    if ros_type.startswith("string"):
        return str
    if ros_type == "boolean":
        return bool
    if ros_type in ("float", "double"):
        return float
    return int if ros_type in _NUMBERS else None


@functools.cache
def _message_class(type_name: str) -> type:
    package, name = type_name.split("/")[0], type_name.split("/")[-1]
    return getattr(importlib.import_module(f"{package}.msg"), name)


def _flat_numbers(dtype: str, value: Any) -> NDArray[Any]:
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = np.frombuffer(value, np.uint8)
    return np.ascontiguousarray(value, dtype=dtype).reshape(-1)


def _fixed_numbers(dtype: str, length: int, value: Any) -> NDArray[Any]:
    numbers = _flat_numbers(dtype, value)
    _check_length(numbers.size, length, None)
    return numbers


def _numbers(dtype: str, typecode: str, bound: int | None, value: Any) -> array.array[Any]:
    numbers = _flat_numbers(dtype, value)
    _check_length(numbers.size, None, bound)
    filled = array.array(typecode)
    filled.frombytes(numbers.view(np.uint8).data)
    return filled


def _list_of(element: str, length: int | None, bound: int | None, value: Any) -> list[Any]:
    values = list(value)
    _check_length(len(values), length, bound)
    if element.startswith("string"):
        return [str(v) for v in values]
    if element == "boolean":
        return [bool(v) for v in values]
    message_class = _message_class(element)
    return [fill(message_class(), v) if isinstance(v, Mapping) else v for v in values]


def _check_length(got: int, length: int | None, bound: int | None) -> None:
    if length is not None and got != length:
        raise MessageError(f"got {got} values, expected {length}")
    if bound is not None and got > bound:
        raise MessageError(f"got {got} values, at most {bound} fit")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def to_diagnostics(at_ns: int, reports: Iterable[Report]) -> Any:
    """diagnostic_msgs/DiagnosticArray."""
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

    statuses = []
    for report in reports:
        # `level` is a `byte`, which rclpy wants as bytes of length one.
        status = DiagnosticStatus(level=bytes([int(report.level)]))
        statuses.append(fill(status, {
            "name": report.name, "message": report.message, "hardware_id": report.hardware_id,
            "values": [{"key": k, "value": v} for k, v in report.values.items()]}))
    return fill(DiagnosticArray(), {"header": message_fields.header_fields(at_ns, ""), "status": statuses})


# --- in: messages to arrays --------------------------------------------------------------------------------

def stamp_ns(stamp: Any) -> int:
    """builtin_interfaces/Time -> nanoseconds."""
    return message_fields.stamp_ns_of(stamp)


def from_transform(transform: Any) -> tuple[str, str, int, Matrix]:
    """geometry_msgs/TransformStamped -> (parent, child, stamp_ns, T_parent_child).

    Raises:
        MessageError: The quaternion is no rotation.
    """
    T_parent_child = message_fields.matrix_of_pose(transform.transform)
    return (transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/"),
            stamp_ns(transform.header.stamp), T_parent_child)


def to_camera_frame(header: Any, image: NDArray[np.uint8], calibration: Calibration | None,
                    depth_m: NDArray[np.float32] | None = None) -> CameraFrame:
    """A decoded image with the stamp and frame of its message; lens distortion is removed here.

    Args:
        header: std_msgs/Header of the image message.
        image: (H, W, 3) uint8 RGB.
        calibration: Of this image size; None = not calibrated.
        depth_m: (H, W) along z, registered to the image; None = no depth.
    """
    if calibration is not None:
        image = calibration.undistorted(image)
        depth_m = None if depth_m is None else calibration.undistorted(depth_m, nearest=True)
    return CameraFrame(stamp_ns(header.stamp), image, header.frame_id.lstrip("/"),
                       None if calibration is None else calibration.camera, depth_m)


def to_tf_message(transforms: Iterable[tuple[str, str, int, Matrix]]) -> Any:
    """(parent, child, stamp_ns, T_parent_child) each -> tf2_msgs/TFMessage."""
    from tf2_msgs.msg import TFMessage

    return fill(TFMessage(), message_fields.transforms_fields(
        (at_ns, parent, child, T) for parent, child, at_ns, T in transforms))


def bodies_from_message(message: Any) -> list[BodyView]:
    """SmplxBodyArray -> what markers and overlays need; bodies without joints are left out."""
    views = []
    for body in message.bodies:
        joints = np.frombuffer(body.joints, np.float32).reshape(-1, 3)
        if len(joints) >= 22:
            uv = np.frombuffer(body.joint_uv, np.float32).reshape(-1, 2)
            views.append(BodyView(body.track_id, joints, uv, float(body.score), int(body.track_state) >= 2,
                                  float(np.linalg.norm(joints[0]))))
    return views


def parameters_from_message(body: Any) -> BodyParameters:
    """SmplxBody -> its SMPL-X-layout parameters, in the frame of the message."""
    return BodyParameters(**{f.name: np.array(getattr(body, f.name), np.float32)
                             for f in dataclasses.fields(BodyParameters)})


def pelvis_world(message: Any, bodies: list[BodyView]) -> NDArray[np.float32]:
    """(people, 3) pelvis positions of `bodies_from_message` in the world frame of the same message."""
    T_world_camera = message_fields.matrix_of_pose(message.camera_pose.pose)
    pelvis_camera = stacked([body.joints[0] for body in bodies])
    return apply(T_world_camera, pelvis_camera)


def stacked(points: Iterable[Any]) -> NDArray[np.float32]:
    """N points -> (N, 3); (0, 3) for none."""
    return np.asarray(list(points), np.float32).reshape(-1, 3)
