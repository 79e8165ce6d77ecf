"""Several cameras through one network: each with a memory of its own, or all with one recurrent state.

`CameraStreams` loads a network once and keeps apart what links the frames of each camera. `SharedStateStream` gives
all of them one recurrent state: the network remembers the scene, not the camera, so the frames of all cameras of a
rig may follow one another in the order of their stamps; then every pose comes out in the world of the first frame, and
where each camera stands is what the network's pose head says. Tracks, focal lengths and image sizes stay those of each
camera. `fusion.calibration.poses_from_scene` makes extrinsics of the poses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from human_scene_ros.errors import ConfigError
from human_scene_ros.runtime.stream import HumanSceneStream, StreamMemory
from human_scene_ros.runtime.tracks import TrackerState
from human_scene_ros.scene import CameraFrame, SceneEstimate


class CameraStreams:
    """One network, a memory per camera; a step of one camera is that of a stream which sees this camera alone.

    Args:
        stream: Runs the steps; its own memory is replaced at each.
        cameras: Names.

    Raises:
        ConfigError: No name, or one given twice.
    """

    _SHARED: tuple[str, ...] = ("segment",)

    def __init__(self, stream: HumanSceneStream, cameras: Sequence[str]) -> None:
        if not cameras or len(set(cameras)) != len(cameras):
            raise ConfigError(f"cameras = {list(cameras)}: expected at least one name, each once")
        self.stream = stream
        self._memories = {name: StreamMemory() for name in cameras}
        self._shared = StreamMemory()

    @property
    def segment(self) -> int:
        """Resets so far."""
        return self._shared.segment

    def step(self, camera: str, frame: CameraFrame) -> SceneEstimate:
        """One frame of one camera.

        Raises:
            ConfigError: Unknown camera.
            ImageError, CalibrationError: As `HumanSceneStream.step`; then nothing has changed.
        """
        if camera not in self._memories:
            raise ConfigError(f"camera '{camera}' is unknown; expected one of {sorted(self._memories)}")
        common = {name: getattr(self._shared, name) for name in self._SHARED}
        self.stream.load_state(dataclasses.replace(self._memories[camera], **common))
        estimate = self.stream.step(frame)
        self._shared = self._memories[camera] = self.stream.state()
        return estimate

    def reset(self) -> None:
        """Forget everything but the track numbers already given; the next frame starts a new segment and world."""
        for name, memory in self._memories.items():
            self._memories[name] = StreamMemory(tracks=TrackerState(next_id=memory.tracks.next_id))
        self._shared = StreamMemory(segment=self._shared.segment + 1)


class SharedStateStream(CameraStreams):
    """One recurrent state for a whole rig; frames of all cameras come in the order of their stamps.

    Args:
        stream: Its network must have a pose head and `camera_pose` must be "network" or "auto".
        cameras: Names.

    Raises:
        ConfigError: The network cannot say where a camera stands, or a name is given twice.
    """

    _SHARED = ("segment", "network", "chain", "world", "log_scale", "people_scale", "people_check")

    def __init__(self, stream: HumanSceneStream, cameras: Sequence[str]) -> None:
        obstacle = why_not_shared(stream)
        if obstacle:
            raise ConfigError(f"{obstacle}, so one state cannot place several cameras")
        super().__init__(stream, cameras)


def why_not_shared(stream: HumanSceneStream) -> str:
    """Why a `SharedStateStream` cannot be made of this stream, and what to do; "" if it can."""
    config = stream.network.config
    if not config.pose_head:
        return (f"the network '{config.name}' has no pose head (use weights that have one, or calibrate from people: "
                "human-scene calibrate)")
    if stream.config.camera_pose not in ("auto", "network"):
        return f"camera_pose is '{stream.config.camera_pose}' (one state for several cameras needs 'network' or 'auto')"
    return ""
