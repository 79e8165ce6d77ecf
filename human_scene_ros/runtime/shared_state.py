"""Several cameras through one recurrent state: every pose comes out in the world of the first frame.

The network remembers the scene, not the camera, so the frames of all cameras of a rig may follow one another in one
memory, in the order of their stamps; then where each camera stands is what the network's pose head says. Tracks, focal
lengths and image sizes stay those of each camera. `fusion.calibration.poses_from_scene` makes extrinsics of the poses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from human_scene_ros.errors import ConfigError
from human_scene_ros.runtime.stream import HumanSceneStream, StreamMemory
from human_scene_ros.runtime.tracks import TrackerState
from human_scene_ros.scene import CameraFrame, SceneEstimate

_SHARED = ("segment", "network", "chain", "world", "log_scale")


class SharedStateStream:
    """One stream for a whole rig.

    Args:
        stream: Its network must have a pose head and `camera_pose` must be "network" or "auto".
        cameras: Names.

    Raises:
        ConfigError: The network cannot say where a camera stands, or a name is given twice.
    """

    def __init__(self, stream: HumanSceneStream, cameras: Sequence[str]) -> None:
        config = stream.network.config
        if not config.pose_head:
            raise ConfigError(f"the network '{config.name}' has no pose head, so one state cannot place several "
                              "cameras; use weights that have one, or calibrate from people (human-scene calibrate)")
        if stream.config.camera_pose not in ("auto", "network"):
            raise ConfigError(f"stream.camera_pose = '{stream.config.camera_pose}': one state for several cameras "
                              "needs 'network' (or 'auto')")
        if not cameras or len(set(cameras)) != len(cameras):
            raise ConfigError(f"cameras = {list(cameras)}: expected at least one name, each once")
        self._stream = stream
        self._memories = {name: StreamMemory() for name in cameras}
        self._shared = StreamMemory()

    @property
    def segment(self) -> int:
        """Resets so far."""
        return self._shared.segment

    def step(self, camera: str, frame: CameraFrame) -> SceneEstimate:
        """One frame of one camera; frames of all cameras come in the order of their stamps.

        Raises:
            ConfigError: Unknown camera.
            ImageError, CalibrationError: As `HumanSceneStream.step`; then nothing has changed.
        """
        if camera not in self._memories:
            raise ConfigError(f"camera '{camera}' is unknown; expected one of {sorted(self._memories)}")
        common = {name: getattr(self._shared, name) for name in _SHARED}
        self._stream.load_state(dataclasses.replace(self._memories[camera], **common))
        estimate = self._stream.step(frame)
        self._shared = self._memories[camera] = self._stream.state()
        return estimate

    def reset(self) -> None:
        """Forget everything but the track numbers already given; the next frame starts a new segment and world."""
        for name, memory in self._memories.items():
            self._memories[name] = StreamMemory(tracks=TrackerState(next_id=memory.tracks.next_id))
        self._shared = StreamMemory(segment=self._shared.segment + 1)
