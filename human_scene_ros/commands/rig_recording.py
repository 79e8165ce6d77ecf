"""What a recording of several cameras says about them and about the people: the truth of a rig.

People are `/gt/people`, or the `/gt/CAMERA/bodies` of converted data sets; poses are on `/tf_static` or
`/gt/CAMERA/camera_pose`. Images are not decoded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import SourceError
from human_scene_ros.evaluation.rig import People
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply
from human_scene_ros.sources.bag_reader import BagReader
from human_scene_ros.sources.bag_writer import TRUTH_BODIES, TRUTH_POSE, truth_topic
from human_scene_ros.sources.calibration import Calibration, is_rectified_topic
from human_scene_ros.sources.fusion_fields import people_joints
from human_scene_ros.sources.message_fields import matrix_of_pose, stamp_ns_of, truth_from_message
from human_scene_ros.sources.reader import choose_info_topic, image_topics

Array = NDArray[np.float64]

TRUTH_PEOPLE = "/gt/people"
JOINTS = 22


@dataclasses.dataclass(frozen=True)
class RigTruth:
    """What a recording knows about its cameras and people.

    Args:
        path: The recording.
        images: Camera -> image topic.
        cameras: Camera -> intrinsics.
        frames: Camera -> optical frame of its images.
        world_frame: That the poses are in; "" where no transform names it.
        on_tf: Cameras whose own optical frame is on /tf_static; data sets keep true poses in frames beside it.
        standing: Camera -> (4, 4) pose in the world, of cameras that do not move.
        moving: Camera -> stamp -> (4, 4), of those whose pose is known image by image.
        people: Stamp -> everybody in the world, in order of time; empty if nobody tells.
    """

    path: Path
    images: Mapping[str, str]
    cameras: Mapping[str, PinholeCamera]
    frames: Mapping[str, str]
    world_frame: str
    on_tf: frozenset[str]
    standing: Mapping[str, Array]
    moving: Mapping[str, Mapping[int, Array]]
    people: Mapping[int, People]

    def poses(self, stamp_ns: int) -> dict[str, Array]:
        """Camera -> pose at a stamp, as far as it is known."""
        found = {name: self.standing[name] for name in self.images if name in self.standing}
        return found | {name: poses[stamp_ns] for name, poses in self.moving.items() if stamp_ns in poses}


def camera_topics(bag: BagReader, only: Sequence[str] = ()) -> dict[str, str]:
    """Camera -> image topic, compressed before raw.

    Args:
        bag: The recording.
        only: Cameras to use; empty = all.

    Raises:
        SourceError: A camera of `only` is not there, or there are fewer than two.
    """
    found = {topic.strip("/").split("/")[0]: topic for topic in sorted(image_topics(bag))}
    if unknown := sorted(set(only) - set(found)):
        raise SourceError(f"{bag.path} has no cameras {unknown}; it has {sorted(found)}")
    chosen = {name: topic for name, topic in found.items() if not only or name in only}
    if len(chosen) < 2:
        raise SourceError(f"{bag.path}: {len(chosen)} camera(s) ({', '.join(chosen) or 'none'}); a rig needs two or "
                          "more, as /CAMERA/image/compressed or /CAMERA/image_raw/compressed")
    return chosen


def read_rig_truth(path: Path, only: Sequence[str] = (), *, people_needed: bool = True) -> RigTruth:
    """Cameras, poses and people of a recording.

    Args:
        path: The recording.
        only: Cameras to use; empty = all.
        people_needed: Refuse a recording that does not say where people are.

    Raises:
        SourceError: Fewer than two cameras, no CameraInfo or pose of one of them, or no truth of people.
    """
    with BagReader(path) as bag:
        images = camera_topics(bag, only)
        cameras, frames = {}, {}
        for name, topic in images.items():
            info_topic = choose_info_topic(bag, topic, None)
            if info_topic is None:
                raise SourceError(f"{path}: camera {name} has no camera_info beside {topic}; a rig needs intrinsics")
            info = bag.deserialize(info_topic, bag.first(info_topic)[1])
            calibration = Calibration.from_message(info, int(info.width), int(info.height),
                                                   rectified=is_rectified_topic(topic))
            if calibration is None:
                raise SourceError(f"{path}: {info_topic} says that the camera is not calibrated; a rig needs "
                                  "intrinsics")
            cameras[name] = calibration.camera
            frames[name] = str(bag.deserialize(topic, bag.first(topic)[1]).header.frame_id)
        transforms = _static_transforms(bag)
        known = {name: next((f for f in (f"gt_{frames[name]}_optical", f"gt_{frames[name]}", frames[name])
                             if f in transforms), "") for name in images}
        moving, people = _true_poses_and_people(bag, images)
    standing = {name: transforms[frame][1] for name, frame in known.items() if frame}
    lost = [name for name in images if name not in standing and name not in moving]
    if lost:
        raise SourceError(f"{path} does not say where the cameras {lost} stand: neither /tf_static "
                          f"({', '.join(sorted(transforms)) or 'nothing on it'}) nor /gt/CAMERA/camera_pose holds "
                          "their poses")
    if people_needed and not people:
        raise SourceError(f"{path} holds no truth of people ({TRUTH_PEOPLE} or /gt/CAMERA/bodies)")
    worlds = [transforms[frame][0] for frame in known.values() if frame]
    return RigTruth(path, images, cameras, frames, worlds[0] if worlds else "",
                    frozenset(name for name in images if frames[name] in transforms), standing, moving,
                    {stamp_ns: people_of(found) for stamp_ns, found in sorted(people.items())})


def people_of(found: Mapping[int, Array]) -> People:
    """Everybody, from number -> (22, 3) joints."""
    return People(np.array(sorted(found), np.int64),
                  np.array([found[number] for number in sorted(found)], np.float64).reshape(-1, JOINTS, 3))


def _static_transforms(bag: BagReader) -> dict[str, tuple[str, Array]]:
    """Frame -> its parent and its pose there."""
    if "/tf_static" not in bag.topics:
        return {}
    return {str(t.child_frame_id): (str(t.header.frame_id), matrix_of_pose(t.transform))
            for _, _, data in bag.messages(["/tf_static"]) for t in bag.deserialize("/tf_static", data).transforms}


def _true_poses_and_people(bag: BagReader, images: Mapping[str, str]) -> tuple[dict[str, dict[int, Array]],
                                                                               dict[int, dict[int, Array]]]:
    """Camera -> stamp -> pose, and stamp -> person -> joints in the world."""
    moving: dict[str, dict[int, Array]] = {}
    people: dict[int, dict[int, Array]] = {}
    for name in images:
        bodies, pose = truth_topic(TRUTH_BODIES, name), truth_topic(TRUTH_POSE, name)
        for topic, _, data in bag.messages([t for t in (bodies, pose) if t in bag.topics]):
            message = bag.deserialize(topic, data)
            stamp_ns = stamp_ns_of(message.header.stamp)
            if topic == pose:
                moving.setdefault(name, {})[stamp_ns] = matrix_of_pose(message.pose.pose)
            elif TRUTH_PEOPLE not in bag.topics:
                truth = truth_from_message(message)
                at = people.setdefault(stamp_ns, {})
                for person in truth.people:
                    joints = person.joints_camera[:JOINTS].astype(np.float64)
                    at.setdefault(person.person_id, np.asarray(apply(truth.T_world_camera, joints), np.float64))
    if TRUTH_PEOPLE in bag.topics:
        for _, _, data in bag.messages([TRUTH_PEOPLE]):
            message = bag.deserialize(TRUTH_PEOPLE, data)
            people[stamp_ns_of(message.header.stamp)] = people_joints(message.people)
    return moving, people
