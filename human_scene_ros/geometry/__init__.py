"""Conventions of every number in this package.

Poses: `T_a_b` is (4, 4) and maps coordinates in b to coordinates in a: `p_a = T_a_b @ p_b`; adjacent
names of a product meet, `T_world_camera @ T_camera_body`. `rot_a_b` is its (3, 3) rotation.

Frames: "camera" is the ROS optical frame (x right, y down, z forward; REP-103 suffix frames), equal to
the network's and OpenCV's. "origin" is the first optical frame after a reset. "world" is z up (REP-103).
"body" axes follow REP-155 (x out of the chest, y left, z to the head). SMPL-X axes are x left, y up, z forward.

Units: metres, radians, seconds; otherwise the name says so (`_px`, `_ns`, `_ms`, `_mm`, `_deg`).
Time: `stamp_ns` is an integer of nanoseconds. Pixels: (u, v) = (column, row), the centre of the first
pixel is (0, 0). Quaternions are `quat_wxyz`; ROS's xyzw exists only where messages are filled.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
