"""A recording of several cameras in one synthetic room: images, calibration, poses, and the truth of everybody.

Topics: `/camera_0/image/compressed`, `/camera_0/camera_info` and so on, `/tf_static` with `map` -> optical frames,
`/gt/people` (FusedPersonArray, in `map`), and on request the truth of each image, `/gt/camera_0/bodies` and so on.
One camera may be silent for a while.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from human_scene_ros.body.convert import transformed
from human_scene_ros.body.model import load_body_model, pose_joints
from human_scene_ros.commands.synthesize import truth_of
from human_scene_ros.scene import BodyEstimate, TrackState
from human_scene_ros.sources import fusion_fields, message_fields
from human_scene_ros.sources.bag_writer import SceneBagWriter
from human_scene_ros.sources.fusion_fields import FusedBody
from human_scene_ros.sources.message_fields import BodyDescription
from human_scene_ros.synthetic.room_rig import room_rig
from human_scene_ros.synthetic.world import SyntheticFrame, WorldConfig

WORLD_FRAME, TRUTH_TOPIC = "map", "/gt/people"
START_NS = 1_000_000_000_000


@dataclasses.dataclass(frozen=True)
class Outage:
    """A camera that says nothing for a while.

    Args:
        camera: Index.
        begin_s: From the start of the recording.
        end_s: When it is back.
    """

    camera: int
    begin_s: float
    end_s: float

    def hides(self, camera: int, at_s: float) -> bool:
        """Whether this camera's image of this moment is missing."""
        return camera == self.camera and self.begin_s <= at_s < self.end_s


def camera_name(index: int) -> str:
    """Of the cameras of such a recording, in topics and frames."""
    return f"camera_{index}"


def write_rig_recording(folder: Path, seed: int, config: WorldConfig, cameras: int, *, outage: Outage | None = None,
                        quality: int = 80, overwrite: bool = False, image_truth: bool = False,
                        on_frame: Callable[[], object] = lambda: None) -> None:
    """Render and write.

    Args:
        folder: The rosbag2 folder to make.
        seed: Of the world.
        config: Of the world; its camera motion is not used.
        cameras: How many.
        outage: A camera that dies and returns.
        quality: Of the JPEG images.
        overwrite: Replace a recording that is there already.
        image_truth: Write the truth of every image too: bodies, pose and depth, for `evaluate bag`.
        on_frame: Called after each moment.

    Raises:
        SourceError, ConfigError: The folder cannot be made; too many cameras.
    """
    views = room_rig(seed, config, cameras)
    model = load_body_model()
    description = BodyDescription(body_model=model.name, id_prefix="gt")
    with SceneBagWriter(folder, overwrite=overwrite, compress=True) as writer:
        writer.write("/tf_static", message_fields.TF_MESSAGE, message_fields.transforms_fields(
            (START_NS, WORLD_FRAME, f"{camera_name(k)}_optical", view.camera_path.T_world_camera[0])
            for k, view in enumerate(views)), START_NS, latched=True)
        for index in range(config.num_frames):
            people: list[FusedBody] = []
            stamp_ns = START_NS
            for k, view in enumerate(views):
                frame = view.frame(index)
                stamp_ns = START_NS + frame.stamp_ns
                people = people or _people(frame, model)
                if outage is None or not outage.hides(k, frame.stamp_ns * 1e-9):
                    writer.write_camera(f"/{camera_name(k)}/image", frame.image, frame.camera, stamp_ns,
                                        f"{camera_name(k)}_optical", quality=quality)
                    if image_truth:
                        writer.write_truth(truth_of(frame, stamp_ns, frame.depth_m), camera=camera_name(k),
                                           camera_frame=f"{camera_name(k)}_optical", world_frame=WORLD_FRAME)
            writer.write(TRUTH_TOPIC, fusion_fields.FUSED_ARRAY, fusion_fields.fused_array_fields(
                stamp_ns, WORLD_FRAME, 0, [camera_name(k) for k in range(cameras)], [], 0.0, 0.0, people, description),
                stamp_ns)
            on_frame()


def _people(frame: SyntheticFrame, model: Any) -> list[FusedBody]:
    """Everybody in the world frame; joints without the clothes' or the ground's doing, as the parameters say."""
    people = []
    for person in frame.people:
        parameters = transformed(model, person.parameters, frame.T_world_camera)
        joints = pose_joints(model, parameters.full_pose(), parameters.betas, parameters.transl, parameters.expression)
        body = BodyEstimate(
            track_id=person.person_id, track_state=TrackState.CONFIRMED, track_age=1, time_since_update_s=0.0,
            score=1.0, parameters=parameters, joints_camera=joints, head_uv_px=np.zeros(2, np.float32),
            bbox_px=np.full(4, np.nan, np.float32))
        people.append(FusedBody(body, 0, None, (), float("nan"), 1.0))
    return people
