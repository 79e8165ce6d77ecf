"""The file that says where the cameras of a rig stand, and the same as a URDF snippet.

    world_frame: map
    cameras:
      front: {frame: front_optical, position: [2.1, 0.0, 2.4], orientation: [-0.6, 0.6, -0.3, 0.4]}

Positions are metres, orientations quaternions x, y, z, w of the optical frame in the world.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.transform import make_transform
from human_scene_ros.sources.fusion_fields import SOURCE_FILE, CameraPlace

_KEYS = {"frame", "position", "orientation"}


def read_rig(path: str | Path) -> dict[str, CameraPlace]:
    """Camera name -> place.

    Raises:
        ConfigError: The file cannot be read, has unknown or missing keys, or holds a pose that is none.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}; expected a YAML file as ~/calibrate_extrinsics writes it") from error
    if not isinstance(content, dict) or not isinstance(content.get("cameras"), dict) or (
            set(content) - {"world_frame", "cameras"}):
        raise ConfigError(f"{path}: expected the keys world_frame and cameras")
    places = {}
    for name, entry in content["cameras"].items():
        if not isinstance(entry, dict) or not {"position", "orientation"} <= set(entry) <= _KEYS:
            raise ConfigError(f"{path}: camera '{name}' holds {sorted(entry) if isinstance(entry, dict) else entry}; "
                              f"expected {sorted(_KEYS)}")
        position, quat_xyzw = _numbers(path, name, entry, "position", 3), _numbers(path, name, entry, "orientation", 4)
        if not 0.9 < np.linalg.norm(quat_xyzw) < 1.1:
            raise ConfigError(f"{path}: camera '{name}': orientation {entry['orientation']} is no unit quaternion")
        places[str(name)] = CameraPlace(str(name), str(entry.get("frame", "")), make_transform(
            Rotation.from_quat(quat_xyzw).as_matrix(), position), source=SOURCE_FILE)
    return places


def _numbers(path: str | Path, name: str, entry: dict[str, object], key: str, length: int) -> np.ndarray:
    try:
        values = np.array(entry[key], np.float64)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.shape != (length,) or not np.isfinite(values).all():
        raise ConfigError(f"{path}: camera '{name}': {key} = {entry[key]}; expected {length} finite numbers")
    return values


def write_rig(path: str | Path, world_frame: str, places: Sequence[CameraPlace]) -> tuple[Path, Path]:
    """Write what `read_rig` reads, and the URDF snippet beside it; returns both files."""
    target = Path(path)
    target.write_text(rig_text(world_frame, places))
    target.with_suffix(".urdf").write_text(urdf_text(world_frame, places))
    return target, target.with_suffix(".urdf")


def rig_text(world_frame: str, places: Sequence[CameraPlace]) -> str:
    """What `read_rig` reads, with what is known about each pose as a comment; unknown cameras are left out."""
    lines = [f"world_frame: {world_frame}", "cameras:"]
    for place in places:
        if place.T_world_camera is None:
            continue
        position = ", ".join(f"{v:.5f}" for v in place.T_world_camera[:3, 3])
        quat = ", ".join(f"{v:.7f}" for v in Rotation.from_matrix(place.T_world_camera[:3, :3]).as_quat())
        lines += [f"  {place.camera_name}:  # {describe(place)}", f"    frame: {json.dumps(place.frame)}",
                  f"    position: [{position}]  # m", f"    orientation: [{quat}]  # x, y, z, w"]
    return "\n".join(lines) + "\n"


def urdf_text(world_frame: str, places: Sequence[CameraPlace]) -> str:
    """Fixed joints world -> optical frame, to be pasted into a robot or room description."""
    joints = []
    for place in places:
        if place.T_world_camera is None:
            continue
        xyz = " ".join(f"{v:.5f}" for v in place.T_world_camera[:3, 3])
        rpy = " ".join(f"{v:.6f}" for v in Rotation.from_matrix(place.T_world_camera[:3, :3]).as_euler("xyz"))
        child = place.frame or f"{place.camera_name}_optical_frame"
        joints.append(f'<joint name="{world_frame}_to_{place.camera_name}" type="fixed">\n'
                      f'  <parent link="{world_frame}"/>\n  <child link="{child}"/>\n'
                      f'  <origin xyz="{xyz}" rpy="{rpy}"/>\n</joint>\n')
    return "".join(joints)


def describe(place: CameraPlace) -> str:
    """Residual, samples and standard deviations in one line."""
    if not np.isfinite(place.rms_residual_m):
        return "given"
    text = f"rms {100.0 * place.rms_residual_m:.1f} cm over {place.samples} person-frames"
    if place.covariance is not None and np.isfinite(place.covariance).all():
        sigma = np.sqrt(np.maximum(np.diag(place.covariance), 0.0))
        text += (f", sigma {100.0 * float(np.linalg.norm(sigma[:3])):.1f} cm "
                 f"{np.degrees(float(np.linalg.norm(sigma[3:]))):.2f} deg")
    return text
