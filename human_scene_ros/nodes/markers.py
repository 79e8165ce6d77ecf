"""What people look like in RViz: skeletons, capsules, trails and meshes as plain fields. No ROS import.

Each function returns mappings for `convert.fill` on visualization_msgs/Marker. Namespaces are track ids, so
that RViz lists people, and a person who has left is erased by namespace and id.
"""

from __future__ import annotations

import colorsys
import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Fields = dict[str, Any]

# visualization_msgs/Marker types and actions
CYLINDER, LINE_STRIP, LINE_LIST, SPHERE_LIST, TEXT, TRIANGLE_LIST = 3, 4, 5, 7, 9, 11
ADD, DELETE = 0, 2

# Limbs as (joint, child, radius in metres), SMPL-X joint numbers.
CAPSULES = (
    (1, 4, 0.075), (2, 5, 0.075), (4, 7, 0.055), (5, 8, 0.055), (7, 10, 0.04), (8, 11, 0.04),  # legs
    (0, 3, 0.12), (3, 6, 0.12), (6, 9, 0.13), (9, 12, 0.10), (12, 15, 0.09),  # trunk, head
    (13, 16, 0.07), (14, 17, 0.07), (16, 18, 0.05), (17, 19, 0.05), (18, 20, 0.04), (19, 21, 0.04),  # arms
)


@dataclasses.dataclass(frozen=True)
class BodyView:
    """What the markers need of one person.

    Args:
        track_id: For instance "b0042".
        joints: (J, 3) metres in the frame of the header, SMPL-X order; J is 22 or more.
        joint_uv_px: (J, 2) pixels of the source image, or (0, 2).
        score: 0 to 1.
        predicted: True if the person was not seen in this image.
        distance_m: Pelvis to camera.
    """

    track_id: str
    joints: NDArray[np.float32]
    joint_uv_px: NDArray[np.float32]
    score: float
    predicted: bool
    distance_m: float


def color_of(track_id: str, alpha: float = 1.0) -> dict[str, float]:
    """A colour that stays with the id; neighbouring ids differ by the golden angle."""
    digits = "".join(c for c in track_id if c.isdigit())
    number = int(digits) if digits else zlib.crc32(track_id.encode())
    red, green, blue = colorsys.hsv_to_rgb((0.11 + number * 0.61803398875) % 1.0, 0.75, 1.0)
    return {"r": red, "g": green, "b": blue, "a": alpha}


def skeleton_markers(body: BodyView, parents: Sequence[int], header: Fields) -> list[Fields]:
    """Bones as lines, joints as spheres, the id above the head."""
    color = color_of(body.track_id, 0.4 if body.predicted else 1.0)
    count = len(body.joints)
    ends = np.array([(parents[j], j) for j in range(1, count)]).reshape(-1)
    head = body.joints[15] if count > 15 else body.joints[0]
    label = f"{body.track_id}  {body.distance_m:.1f} m"
    return [
        _marker(body.track_id, 0, LINE_LIST, header, color, scale=(0.025, 0.0, 0.0),
                points=body.joints[ends]),
        _marker(body.track_id, 1, SPHERE_LIST, header, color, scale=(0.05, 0.05, 0.05),
                points=body.joints[:22]),
        _marker(body.track_id, 2, TEXT, header, {"r": 1.0, "g": 1.0, "b": 1.0, "a": 1.0},
                scale=(0.0, 0.0, 0.14), position=head - np.array([0.0, 0.3, 0.0], np.float32), text=label),
    ]


def capsule_markers(body: BodyView, header: Fields) -> list[Fields]:
    """Limbs as cylinders with round ends: the space a person takes up."""
    color = color_of(body.track_id, 0.25 if body.predicted else 0.6)
    markers, ends = [], []
    for number, (start, end, radius) in enumerate(CAPSULES):
        a, b = body.joints[start].astype(float), body.joints[end].astype(float)
        length = float(np.linalg.norm(b - a))
        if length < 1e-6:
            continue
        markers.append(_marker(body.track_id, 10 + number, CYLINDER, header, color,
                               scale=(2.0 * radius, 2.0 * radius, length), position=(a + b) / 2.0,
                               quat_wxyz=_turn_z_to((b - a) / length)))
        ends.append((start, end, radius))
    for number, radius in enumerate(sorted({r for _, _, r in ends})):
        joints = sorted({j for start, end, r in ends if r == radius for j in (start, end)})
        markers.append(_marker(body.track_id, 40 + number, SPHERE_LIST, header, color,
                               scale=(2.0 * radius,) * 3, points=body.joints[joints]))
    return markers


def trail_marker(track_id: str, points_world: NDArray[np.floating], header: Fields) -> Fields:
    """(N, 3) recent pelvis positions in the world frame as one line."""
    return _marker(track_id, 50, LINE_STRIP, header, color_of(track_id, 0.8), scale=(0.03, 0.0, 0.0),
                   points=points_world)


def mesh_marker(track_id: str, vertices: NDArray[np.floating], faces: NDArray[np.integer],
                header: Fields) -> Fields:
    """(V, 3) metres and (F, 3) vertex numbers as triangles."""
    return _marker(track_id, 60, TRIANGLE_LIST, header, color_of(track_id), scale=(1.0, 1.0, 1.0),
                   points=vertices[faces.reshape(-1)])


def erase_marker(track_id: str, number: int, header: Fields) -> Fields:
    """Takes one marker of a person who has left away."""
    return {"header": header, "ns": track_id, "id": number, "action": DELETE}


def _turn_z_to(direction: NDArray[np.floating]) -> NDArray[np.float64]:
    """(4,) quaternion w, x, y, z of the smallest rotation that turns +z to the unit vector `direction`."""
    half = np.array([direction[0], direction[1], direction[2] + 1.0])
    norm = float(np.linalg.norm(half))
    if norm < 1e-9:
        return np.array([0.0, 1.0, 0.0, 0.0])  # straight down: half a turn about x
    half /= norm
    return np.array([half[2], -half[1], half[0], 0.0])


def _marker(namespace: str, number: int, kind: int, header: Fields, color: dict[str, float], *,
            scale: tuple[float, float, float], points: NDArray[np.floating] | None = None,
            position: NDArray[np.floating] | None = None, quat_wxyz: NDArray[np.floating] | None = None,
            text: str = "") -> Fields:
    x, y, z = (0.0, 0.0, 0.0) if position is None else position.tolist()
    qw, qx, qy, qz = (1.0, 0.0, 0.0, 0.0) if quat_wxyz is None else quat_wxyz.tolist()
    fields: Fields = {
        "header": header, "ns": namespace, "id": number, "type": kind, "action": ADD,
        "pose": {"position": {"x": x, "y": y, "z": z}, "orientation": {"x": qx, "y": qy, "z": qz, "w": qw}},
        "scale": {"x": scale[0], "y": scale[1], "z": scale[2]}, "color": color, "text": text}
    if points is not None:
        fields["points"] = [{"x": px, "y": py, "z": pz} for px, py, pz in np.asarray(points, float).tolist()]
    return fields
