"""`human-scene calibrate`: where the cameras of a rig stand, from recorded people; no ROS.

    human-scene calibrate RECORDING --out rig.yaml
    human-scene calibrate front=out/front left=out/left --out rig.yaml
    human-scene calibrate RECORDING --scene --preset human3r_672l --checkpoint WEIGHTS --out rig.yaml

A recording holds the body messages of several cameras (`/CAMERA/.../bodies`); folders that `human-scene run` made hold
one camera each. With `--scene` the recording holds the images of all cameras, which go through one recurrent state in
the order of their stamps; that needs weights with a pose head. The arithmetic is that of the fusion node's service.
`rig.yaml` is what its `extrinsics.file` reads, `rig.urdf` beside it holds fixed joints.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ConfigError, SourceError
from human_scene_ros.fusion.calibration import FoundCamera, PeopleMemory, PoseMemory, calibrate, poses_from_scene
from human_scene_ros.geometry.transform import invert, rotation_angle
from human_scene_ros.scene import CameraFrame, TrackingStatus, TrackState
from human_scene_ros.sources.fusion_fields import CameraPlace
from human_scene_ros.sources.rig_file import read_rig, write_rig

if TYPE_CHECKING:
    from human_scene_ros.runtime.stream import HumanSceneStream

Matrix = NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("input", nargs="+", metavar="INPUT",
                        help="recording with bodies of several cameras; or CAMERA=PATH for each camera's own recording "
                             "or folder of 'human-scene run'")
    parser.add_argument("--out", type=Path, default=Path("rig.yaml"), help="file to write (default rig.yaml)")
    parser.add_argument("--world", default="map", help="name of the world frame (default map)")
    parser.add_argument("--duration", type=float, default=0.0, help="use only the last so many seconds (default: all)")
    parser.add_argument("--scene", action="store_true",
                        help="not from people but from the images of all cameras in one recurrent state")
    parser.add_argument("--preset", default="nano", help="with --scene: network preset; nano has no pose head")
    parser.add_argument("--checkpoint", default="", help="with --scene: weights (default: those that ship)")
    parser.add_argument("--device", default="auto", help="with --scene: torch device (default auto)")
    parser.add_argument("--reference", type=Path, help="poses to compare with: a file like rig.yaml, or a recording "
                                                       "with images and /tf_static; its first camera keeps its pose")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Read, calibrate, write, compare; 1 if a camera was not found."""
    if not math.isfinite(arguments.duration) or arguments.duration < 0.0:
        raise ConfigError(f"--duration {arguments.duration}: expected 0 (all) or more seconds")
    reference = read_reference(arguments.reference) if arguments.reference else {}
    if arguments.scene:
        found, frames, T_world_first = _from_scene(arguments)
    else:
        memory, frames, T_world_first = read_people(arguments.input)
        found = calibrate(memory.tracks(list(frames), arguments.duration))
    places = placed(found, reference.get(found[0].name, T_world_first), frames)
    try:
        files = write_rig(arguments.out, arguments.world, places)
    except OSError as error:
        raise SourceError(f"cannot write {arguments.out}: {error.strerror}") from error
    report = {"cameras": {camera.name: _row(camera, reference, found[0].name) for camera in found},
              "files": [str(file) for file in files]}
    if arguments.json:
        print(json.dumps(report))
    else:
        for camera in found:
            print(camera.line() + _comparison(report["cameras"][camera.name]))  # type: ignore[index]
        print(f"written: {files[0]} (extrinsics.file of fusion_node) and {files[1]}")
    return 0 if all(camera.T_first_camera is not None for camera in found) else 1


def placed(found: Sequence[FoundCamera], T_world_first: Matrix, frames: dict[str, str]) -> tuple[CameraPlace, ...]:
    """The cameras in the world."""
    from human_scene_ros.nodes.fusion_rig import places_of

    return places_of(found, T_world_first, frames)


def read_people(inputs: Sequence[str]) -> tuple[PeopleMemory, dict[str, str], Matrix]:
    """Torso joints of all cameras, their optical frames, and the first one's pose as its own messages give it.

    Args:
        inputs: As on the command line.

    Raises:
        SourceError: A recording cannot be read or has no bodies.
        ConfigError: Fewer than two cameras, or one named twice.
    """
    from human_scene_ros.sources.bag_reader import BagReader
    from human_scene_ros.sources.message_fields import BODY_ARRAY, matrix_of_pose, stamp_ns_of

    chosen: dict[str, tuple[Path, str]] = {}  # camera -> recording and topic
    for text in inputs:
        name, path = _named(text)
        with BagReader(path) as bag:
            topics = sorted(t.name for t in bag.topics.values() if t.msgtype == BODY_ARRAY and t.count
                            and not t.name.startswith("/gt/"))
            if not topics or (name and len(topics) > 1):
                raise SourceError(f"{path} has {len(topics)} topics of bodies ({', '.join(topics) or 'none'}); "
                                  f"expected {'one' if name else 'at least one'}: record those of every camera, or run "
                                  "'human-scene run' on each camera's images")
        for topic in topics:
            camera = name or topic.strip("/").split("/")[0]
            if camera in chosen:
                raise ConfigError(f"camera '{camera}' is given twice; name them: CAMERA=PATH")
            chosen[camera] = path, topic
    if len(chosen) < 2:
        raise ConfigError(f"only the camera {list(chosen)} is given; expected two or more: a recording of several, or "
                          "CAMERA=PATH twice")
    memory, frames, T_world_first = PeopleMemory(list(chosen), math.inf), dict.fromkeys(chosen, ""), np.eye(4)
    for camera, (path, topic) in chosen.items():
        with BagReader(path) as bag:
            for _, _, data in bag.messages([topic]):
                message: Any = bag.deserialize(topic, data)
                if not frames[camera]:
                    frames[camera] = str(message.header.frame_id).lstrip("/")
                    if camera == next(iter(chosen)) and message.camera_pose.covariance[0] != -1.0:
                        T_world_first = matrix_of_pose(message.camera_pose.pose)
                memory.add(camera, stamp_ns_of(message.header.stamp) * 1e-9,
                           [body for body in message.bodies if body.track_state < TrackState.PREDICTED])
    return memory, frames, T_world_first


def _from_scene(arguments: argparse.Namespace) -> tuple[tuple[FoundCamera, ...], dict[str, str], Matrix]:
    from human_scene_ros.runtime.engine import make_stream

    if len(arguments.input) != 1:
        raise ConfigError(f"--scene takes one recording with the images of all cameras, got {arguments.input}")
    stream = make_stream(arguments.preset, arguments.checkpoint or None, device=arguments.device, engine="torch")
    memory, frames = poses_of_images(stream, Path(arguments.input[0]), quiet=arguments.json)
    poses = memory.poses(list(frames), arguments.duration)
    first = next(iter(poses.values()))
    return poses_from_scene(poses), frames, first[0] if len(first) else np.eye(4)


def poses_of_images(stream: HumanSceneStream, path: Path, *, quiet: bool = True) -> tuple[PoseMemory, dict[str, str]]:
    """The poses that one recurrent state gives to the images of all cameras of a recording, and their optical frames.

    Raises:
        SourceError: The recording cannot be read or has images of fewer than two cameras.
        ConfigError: The network has no pose head.
    """
    from tqdm import tqdm

    from human_scene_ros.runtime.shared_state import SharedStateStream
    from human_scene_ros.sources.bag_reader import BagReader
    from human_scene_ros.sources.reader import image_topics, open_source

    with BagReader(path) as bag:
        topics = {topic.strip("/").split("/")[0]: topic for topic in sorted(image_topics(bag))}
        count = sum(bag.topics[topic].count for topic in topics.values())
    if len(topics) < 2:
        raise SourceError(f"{path} has images of the cameras {list(topics)}; expected two or more")
    shared = SharedStateStream(stream, list(topics))
    memory, frames = PoseMemory(list(topics), math.inf), dict.fromkeys(topics, "")
    with contextlib.ExitStack() as stack, tqdm(total=count, unit="image", disable=quiet) as bar:
        def images(camera: str, topic: str) -> Iterator[tuple[int, str, CameraFrame]]:
            for frame in stack.enter_context(open_source(path, topic)):
                yield frame.stamp_ns, camera, frame

        in_order = heapq.merge(*(images(*item) for item in topics.items()), key=lambda item: item[:2])
        for stamp_ns, camera, frame in in_order:
            frames[camera] = frames[camera] or frame.camera_frame
            estimate = shared.step(camera, frame)
            if estimate.status is not TrackingStatus.LOST:
                memory.add(camera, stamp_ns * 1e-9, estimate.T_world_camera)
            bar.update()
    return memory, frames


def _named(text: str) -> tuple[str, Path]:
    name, mark, rest = text.partition("=")
    path = Path(rest if mark else text)
    if mark and not name.isidentifier():
        raise ConfigError(f"'{text}': '{name}' cannot be a camera's name; expected letters, digits and _")
    return (name if mark else ""), (path / "scene" if (path / "scene").is_dir() else path)


def read_reference(path: Path) -> dict[str, Matrix]:
    """Camera -> T_world_camera of a rig file or a recording.

    Raises:
        ConfigError, SourceError: It is neither.
    """
    if path.suffix in (".yaml", ".yml"):
        return {name: place.T_world_camera for name, place in read_rig(path).items()
                if place.T_world_camera is not None}
    from human_scene_ros.commands.rig_recording import read_rig_truth

    return dict(read_rig_truth(path, people_needed=False).standing)


def difference(ours: Matrix, reference: Matrix) -> tuple[float, float]:
    """Degrees and centimetres between two poses."""
    return (math.degrees(rotation_angle(ours[:3, :3].T @ reference[:3, :3])),
            100.0 * float(np.linalg.norm(ours[:3, 3] - reference[:3, 3])))


def _row(camera: FoundCamera, reference: dict[str, Matrix], first: str) -> dict[str, Any]:
    row: dict[str, Any] = {"status": camera.status.name, "person_frames": camera.inliers,
                           "rms_cm": _known(100.0 * camera.rms_m), "ray_error_deg": _known(math.degrees(
                               camera.ray_error)), "time_offset_s": _known(camera.offset_s)}
    if camera.T_first_camera is None or camera.covariance is None:
        return row
    sigma = np.sqrt(np.maximum(np.diag(camera.covariance), 0.0))
    row |= {"sigma_cm": round(100.0 * float(np.linalg.norm(sigma[:3])), 2),
            "sigma_deg": round(math.degrees(float(np.linalg.norm(sigma[3:]))), 3)}
    if camera.name in reference and first in reference and camera.name != first:
        degrees, centimetres = difference(camera.T_first_camera, invert(reference[first]) @ reference[camera.name])
        row |= {"error_deg": round(degrees, 2), "error_cm": round(centimetres, 1)}
    return row


def _known(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _comparison(row: dict[str, Any]) -> str:
    text = f"; sigma {row['sigma_cm']:.1f} cm {row['sigma_deg']:.2f} deg" if "sigma_cm" in row else ""
    return text + (f"; off the reference {row['error_cm']:.1f} cm {row['error_deg']:.2f} deg" if "error_cm" in row
                   else "")
