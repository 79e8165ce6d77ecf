"""Where every camera of a rig stands now: from TF, a file, its own messages, or a calibration. No ROS import."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ConfigError, MessageError
from human_scene_ros.fusion.calibration import FoundCamera
from human_scene_ros.nodes.fusion_config import FusionNodeConfig, camera_config
from human_scene_ros.nodes.tf_tree import TfTree, TransformGoneError, TransformNotReadyError
from human_scene_ros.scene import WorldSource
from human_scene_ros.sources import fusion_fields, message_fields
from human_scene_ros.sources.fusion_fields import CameraPlace
from human_scene_ros.sources.rig_file import read_rig

Matrix = NDArray[np.float64]

_WORLD_OF_SOURCE = {
    fusion_fields.SOURCE_TF: WorldSource.TF, fusion_fields.SOURCE_FILE: WorldSource.FILE,
    fusion_fields.SOURCE_PEOPLE: WorldSource.PEOPLE, fusion_fields.SOURCE_SCENE: WorldSource.CAMERAS,
    fusion_fields.SOURCE_TOPIC: WorldSource.CAMERAS}


def places_of(found: Sequence[FoundCamera], T_world_first: Matrix,
              frames: Mapping[str, str]) -> tuple[CameraPlace, ...]:
    """What a calibration found, in the world.

    Args:
        found: Of `fusion.calibration.calibrate`; the first camera first.
        T_world_first: (4, 4) pose of the first camera's optical frame, which stays.
        frames: Camera -> optical frame.
    """
    axes = np.kron(np.eye(2), T_world_first[:3, :3])
    return tuple(CameraPlace(
        c.name, frames[c.name], None if c.T_first_camera is None else T_world_first @ c.T_first_camera,
        None if c.covariance is None else axes @ c.covariance @ axes.T, c.rms_m, c.inliers, c.offset_s,
        fusion_fields.SOURCE_SCENE if c.by_scene else fusion_fields.SOURCE_PEOPLE, int(c.status)) for c in found)


@dataclasses.dataclass(frozen=True)
class Pose:
    """What is known of a camera at a stamp.

    Args:
        T_world_camera: (4, 4) or None.
        soon: None now, but the transform may still arrive.
    """

    T_world_camera: Matrix | None
    soon: bool = False


class Rig:
    """Poses of the cameras by stamp.

    Args:
        config: Of the node.
        tree: Filled by the node's TF listener.

    Raises:
        ConfigError: The extrinsics file is needed and cannot be used.
    """

    def __init__(self, config: FusionNodeConfig, tree: TfTree) -> None:
        self.frames: dict[str, str] = dict.fromkeys(config.cameras, "")
        self.problems: dict[str, str] = dict.fromkeys(config.cameras, "no message yet")
        self._world, self._tree = config.world_frame, tree
        self._calibrated: dict[str, CameraPlace] = {}
        self._newest: dict[str, Matrix] = {}
        self._source = {name: camera_config(config, name).extrinsics_source for name in config.cameras}
        self._from_file: dict[str, CameraPlace] = {}
        wanted = [name for name, source in self._source.items() if source == "file"]
        if wanted:
            if not config.extrinsics.file:
                raise ConfigError(f"extrinsics_source of {wanted} is file, but extrinsics.file is empty")
            self._from_file = read_rig(config.extrinsics.file)

    def pose(self, camera: str, message: Any, stamp_ns: int) -> Pose:
        """The optical frame of a body message in the world, at the message's own stamp."""
        frame = self.frames[camera] = str(message.header.frame_id).lstrip("/")
        found, problem, soon = None, "", False
        if camera in self._calibrated:
            found = self._calibrated[camera].T_world_camera
        elif self._source[camera] == "file":
            place = self._from_file.get(camera)
            found = place.T_world_camera if place else None
            problem = "" if place else f"not in extrinsics.file, which knows {sorted(self._from_file)}"
        elif self._source[camera] == "topic":
            found, problem = self.pose_in_message(message)
        else:
            try:
                found = self._tree.lookup(self._world, frame, stamp_ns)
            except TransformNotReadyError as error:
                problem, soon = str(error), self._tree.chain(self._world)[-1] == self._tree.chain(frame)[-1]
            except TransformGoneError as error:
                problem = str(error)
        if found is not None and not np.isfinite(found).all():
            found, problem = None, "its pose is not finite"
        self.problems[camera] = problem
        if found is not None:
            self._newest[camera] = found
        return Pose(found, soon)

    def pose_in_message(self, message: Any) -> tuple[Matrix | None, str]:
        """camera_pose of a body message, (4, 4), or why there is none that can be used here."""
        if message.camera_pose.covariance[0] == -1.0:
            return None, "camera_pose of its messages is not estimated"
        if str(message.world_frame).lstrip("/") != self._world:
            return None, f"camera_pose of its messages is in '{message.world_frame}', not in '{self._world}'"
        try:
            T_world_camera = message_fields.matrix_of_pose(message.camera_pose.pose)
        except MessageError as error:
            return None, str(error)
        return (T_world_camera, "") if np.isfinite(T_world_camera).all() else (None, "its pose is not finite")

    def newest(self, camera: str) -> Matrix | None:
        """The last known pose, (4, 4)."""
        return self._newest.get(camera)

    def calibrate(self, place: CameraPlace) -> None:
        """Use this pose from now on."""
        assert place.T_world_camera is not None
        self._calibrated[place.camera_name] = place
        self._newest[place.camera_name] = place.T_world_camera

    def place(self, camera: str) -> CameraPlace:
        """Pose, source and, of a calibration, its quality."""
        if camera in self._calibrated:
            return self._calibrated[camera]
        source = {"tf": fusion_fields.SOURCE_TF, "file": fusion_fields.SOURCE_FILE,
                  "topic": fusion_fields.SOURCE_TOPIC}[self._source[camera]]
        known = None if self.problems[camera] else self._newest.get(camera)
        return CameraPlace(camera, self.frames[camera], known, source=source)

    def world_source(self) -> WorldSource:
        """What ties the rig to its world: the source of the first camera whose pose is known."""
        first = next((name for name in self.frames if name in self._newest), next(iter(self.frames)))
        return _WORLD_OF_SOURCE[self.place(first).source]

    def root_to_camera(self, camera: str) -> tuple[str, Matrix]:
        """Root of the tree that the camera's optical frame hangs under, and T_root_camera.

        Raises:
            TransformNotReadyError, TransformGoneError: A part of that tree moves and is not known now.
        """
        frame = self.frames[camera]
        root = self._tree.chain(frame)[-1]
        return root, self._tree.lookup(root, frame, 0) if root != frame else np.eye(4)
