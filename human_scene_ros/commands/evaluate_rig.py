"""All cameras of a recording together: people fused from their views, against the truth of the rig.

`evaluate bag --rig` runs each camera through a stream and fuses the bodies with the code of `fusion_node`, offline;
`evaluate results --rig` takes what the nodes published. The truth is what `rig_recording` reads.
"""

from __future__ import annotations

import dataclasses
import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.commands import evaluation_output as output
from human_scene_ros.commands.rig_recording import JOINTS, RigTruth, people_of, read_rig_truth
from human_scene_ros.errors import HumanSceneError, SourceError
from human_scene_ros.evaluation.rig import People, RigEvaluation, RigMoment, SeenPeople
from human_scene_ros.evaluation.sequence import SequenceResult
from human_scene_ros.evaluation.stitching import moved_pose, stitch
from human_scene_ros.evaluation.trajectory import associate
from human_scene_ros.evaluation.values import OK
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.scene import TrackState
from human_scene_ros.sources.bag_reader import BagReader
from human_scene_ros.sources.bag_writer import build_message
from human_scene_ros.sources.fusion_fields import EXTRINSICS_UNKNOWN, people_joints
from human_scene_ros.sources.message_definitions import register_type, shared_typestore
from human_scene_ros.sources.message_fields import BODY_ARRAY, body_array_fields, matrix_of_pose, stamp_ns_of
from human_scene_ros.sources.reader import open_source

if TYPE_CHECKING:
    from human_scene_ros.commands.evaluate_job import EvaluationJob
    from human_scene_ros.fusion.sync import Synchroniser
    from human_scene_ros.nodes.fusion_people import CameraBodies, FusionPeople
    from human_scene_ros.runtime.stream import HumanSceneStream

Array = NDArray[np.float64]

MAX_STAMP_DIFFERENCE_S = 0.02
"""Between a set of people and the truth; sets are stamped with the median of their images."""

WORST_MOMENTS = 3
SAME_MOMENT_NS = 20_000_000

MIN_VIEWS = 2
"""Nobody counts whom fewer cameras at a time have ever seen, as in `demo-multi`."""


@dataclasses.dataclass(frozen=True)
class RigEstimate:
    """One set of people and the cameras that they were seen by, in a world of their own."""

    stamp_ns: int
    people: People
    T_world_camera: Mapping[str, Array]
    seen: SeenPeople | None = None


@dataclasses.dataclass(frozen=True)
class RigPiece:
    """Moments that were reconstructed together, in a world of their own.

    Args:
        estimates: Their people.
        T_world_camera: Camera -> (4, 4), as it was placed for all of them.
        calibration: What is known of each camera, one line each.
    """

    estimates: Sequence[RigEstimate]
    T_world_camera: Mapping[str, Array]
    calibration: tuple[str, ...] = ()


# --- results that exist ------------------------------------------------------------------------------------------

def recorded_rig(path: Path, people_topic: str, extrinsics_topic: str) -> list[RigEstimate]:
    """What `fusion_node` published: people who are seen now, and the poses of the cameras as they were then.

    Raises:
        SourceError: The recording lacks one of the topics.
    """
    with BagReader(path) as bag:
        for topic in (people_topic, extrinsics_topic):
            if topic not in bag.topics:
                raise SourceError(f"{path} has no topic {topic}; it has {', '.join(sorted(bag.topics))}")
        sets: list[tuple[int, People]] = []
        poses: dict[int, dict[str, Array]] = {}
        for topic, _, data in bag.messages([people_topic, extrinsics_topic]):
            message = bag.deserialize(topic, data)
            stamp_ns = stamp_ns_of(message.header.stamp)
            if topic == people_topic:
                sets.append((stamp_ns, people_of(people_joints(
                    p for p in message.people if p.state == TrackState.CONFIRMED))))
            else:
                poses[stamp_ns] = {str(c.camera_name): matrix_of_pose(c.pose.pose) for c in message.cameras
                                   if c.status != EXTRINSICS_UNKNOWN}
    stamps = np.array(sorted(poses), np.int64)
    result = []
    for stamp_ns, people in sets:
        # The first ones hold for what came before them: a node speaks of its cameras once a second.
        latest = stamps[max(int(np.searchsorted(stamps, stamp_ns, side="right")) - 1, 0)]
        result.append(RigEstimate(stamp_ns, people, poses[int(latest)]))
    return result


# --- offline -----------------------------------------------------------------------------------------------------

@dataclasses.dataclass(frozen=True)
class _SeenPiece:
    """What the cameras saw of one piece: (stamp_ns, camera, bodies) in order, and the pose of the first image."""

    T_world_first: Array
    frames: list[tuple[int, str, CameraBodies]]


def run_rig(job: EvaluationJob, truth: RigTruth, on_frame: Callable[[], object]) -> tuple[list[RigEstimate],
                                                                                         dict[str, Any]]:
    """Every camera through the stream, then everybody fused as `fusion_node` does it; what it was made with.

    Raises:
        SourceError: No frame can be used.
    """
    from human_scene_ros.fusion.sync import Synchroniser
    from human_scene_ros.nodes.fusion_config import FusionNodeConfig, PersonConfig
    from human_scene_ros.nodes.fusion_people import FusionPeople
    from human_scene_ros.runtime.engine import make_stream
    from human_scene_ros.runtime.stream import StreamConfig

    stream = make_stream(job.preset, job.checkpoint or None, job.body or None, job.device, 1,
                         StreamConfig(reset_interval=job.reset_interval), job.engine)  # type: ignore[arg-type]
    names = tuple(truth.images)
    people = FusionPeople(FusionNodeConfig(cameras=names, body=job.body, person=PersonConfig(min_views=MIN_VIEWS)))
    synchroniser: Synchroniser[CameraBodies] = Synchroniser(names)
    seen, rejected = _seen(job, truth, stream, people, on_frame)
    pieces = []
    for piece in seen:
        placed, lines = _placed(piece, names) if job.rig == "people" else ({}, ())
        people.reset()
        estimates = _fused(piece, truth, people, synchroniser, placed if job.rig == "people" else None)
        pieces.append(RigPiece(estimates, placed, lines))
    facts: dict[str, Any] = {"weights": stream.weights, "rejected": rejected,
                             "fusion": dataclasses.asdict(synchroniser.counters)}
    if not job.stitch:
        if job.rig == "people":
            facts["calibration"] = list(pieces[0].calibration)
        return list(pieces[0].estimates), facts
    estimates, facts["stitching"], facts["calibration"] = stitched(pieces)
    return estimates, facts


def _seen(job: EvaluationJob, truth: RigTruth, stream: HumanSceneStream, people: FusionPeople,
          on_frame: Callable[[], object]) -> tuple[list[_SeenPiece], list[str]]:
    """Each camera through the stream, piece by piece, and why frames were rejected; without pieces nobody has seen."""
    from human_scene_ros.commands.run import describe_bodies

    names, description, store = tuple(truth.images), describe_bodies(stream), shared_typestore()
    register_type(store, BODY_ARRAY)
    begins_ns = piece_begins(tuple(truth.people), job.stitch)
    frames: list[list[tuple[int, str, CameraBodies]]] = [[] for _ in begins_ns]
    T_world_first: list[Array | None] = [None for _ in begins_ns]
    rejected: list[str] = []
    for name in names:
        current = -1
        with open_source(job.path, truth.images[name]) as source:
            source.on_rejected = lambda error: rejected.append(str(error))
            for index, frame in enumerate(source):
                if job.max_frames and index >= job.max_frames:
                    break
                on_frame()
                piece = max(int(np.searchsorted(begins_ns, frame.stamp_ns, side="right")) - 1, 0)
                if piece != current:
                    stream.reset()
                    current = piece
                try:
                    estimate = stream.step(frame if job.intrinsics else dataclasses.replace(frame, camera=None))
                except HumanSceneError as error:
                    rejected.append(str(error))
                    continue
                if T_world_first[piece] is None:
                    T_world_first[piece] = np.asarray(estimate.T_world_camera, np.float64)
                fields = body_array_fields(estimate, description, camera_frame=truth.frames[name], camera_name=name,
                                           sequence=index, world_frame="map")
                frames[piece].append((frame.stamp_ns, name, people.read(build_message(store, BODY_ARRAY, fields))))
    if not any(frames):
        raise SourceError(f"no frame of {job.path} could be used; the last reason: "
                          f"{rejected[-1] if rejected else 'there was none'}")
    return [_SeenPiece(T_first, sorted(seen, key=lambda s: (s[0], names.index(s[1]))))
            for T_first, seen in zip(T_world_first, frames, strict=True) if T_first is not None], rejected


def _placed(piece: _SeenPiece, names: tuple[str, ...]) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Camera -> (4, 4) T_world_camera from the people it sees, and a line of report for each camera."""
    from human_scene_ros.fusion.calibration import PeopleMemory, calibrate

    memory = PeopleMemory(names, math.inf)
    for stamp_ns, name, bodies in piece.frames:
        memory.add(name, (stamp_ns - piece.frames[0][0]) * 1e-9, bodies.bodies)
    found = calibrate(memory.tracks(names))
    return ({c.name: piece.T_world_first @ c.T_first_camera for c in found if c.T_first_camera is not None},
            tuple(camera.line() for camera in found))


def _fused(piece: _SeenPiece, truth: RigTruth, people: FusionPeople, synchroniser: Synchroniser[CameraBodies],
           placed: dict[str, Array] | None) -> list[RigEstimate]:
    """Everybody in sets of frames, with the cameras where they were placed, or where the truth has them (None)."""
    moments = [moment for stamp_ns, name, bodies in piece.frames
               for moment in synchroniser.push(name, stamp_ns, bodies, stamp_ns)]
    moments += synchroniser.flush(piece.frames[-1][0])
    estimates = []
    for moment in moments:
        poses = placed
        if poses is None:
            known = {name: truth.poses(member.stamp_ns).get(name) for name, member in moment.members.items()}
            poses = {**truth.standing, **{name: T for name, T in known.items() if T is not None}}
        fused = people.step(moment.stamp_ns, {name: (m.stamp_ns, m.item) for name, m in moment.members.items()},
                            {name: poses.get(name) for name in truth.images})
        heads = [PinholeCamera(int(m.item.message.width), int(m.item.message.height),
                               *(float(v) for v in m.item.message.intrinsics)).project(m.item.head_camera)
                 for m in moment.members.values()]
        seen_now = SeenPeople(fused.cameras, np.concatenate([np.empty((0, 2)), *heads]), fused.frame.detection_person)
        estimates.append(RigEstimate(moment.stamp_ns, people_of({
            p.body.track_id: p.body.joints_camera[:JOINTS].astype(np.float64) for p in fused.people
            if p.body.track_state == TrackState.CONFIRMED}), poses, seen_now))
    return estimates


def piece_begins(stamps_ns: Sequence[int], length: int) -> NDArray[np.int64]:
    """When the pieces of `length` moments each begin, half a moment early; one piece if `length` is 0."""
    stamps = np.array(stamps_ns, np.int64)
    early = int(np.median(np.diff(stamps))) // 2 if len(stamps) > 1 else 0
    return stamps[::length or len(stamps)] - early


def stitched(pieces: Sequence[RigPiece]) -> tuple[list[RigEstimate], list[dict[str, Any]], list[str]]:
    """All pieces in one world, by their cameras; what became of each, for JSON and as a line.

    The people of a piece that cannot be stitched are missed.
    """
    estimates: list[RigEstimate] = []
    rows, lines, first = [], [], 0
    for piece, found in zip(pieces, stitch([piece.T_world_camera for piece in pieces]), strict=True):
        last = first + len(piece.estimates) - 1
        ok = found.status == OK
        rows.append({"first": first, "last": last, "status": found.status, "cameras": found.shared,
                     "scale": float(found.alignment.s) if ok else None, "rms_m": found.rms if ok else None})
        lines.append(f"sets {first} to {last}: " + (
            f"by {found.shared} cameras, scale {found.alignment.s:.3f}, rms {100.0 * found.rms:.1f} cm" if ok else
            "; ".join([f"no pose in the world of the others ({found.status})",
                       *(line for line in piece.calibration if ": no pose" in line)])))
        first = last + 1
        for estimate in piece.estimates:
            moved = People(estimate.people.number, found.alignment.apply(estimate.people.joints_world))
            poses = {name: moved_pose(found.alignment, T) for name, T in estimate.T_world_camera.items()}
            estimates.append(dataclasses.replace(estimate, people=moved if ok else people_of({}),
                                                 T_world_camera=poses if ok else {}))
    return estimates, rows, lines


# --- both --------------------------------------------------------------------------------------------------------

def moments(truth: RigTruth, estimates: list[RigEstimate], max_frames: int = 0) -> Iterator[RigMoment]:
    """Every time step of the truth with the estimate of its stamp; where there is none, everybody is missed."""
    stamps = np.array(list(truth.people), np.int64)[:max_frames or None]
    own = np.array([e.stamp_ns for e in estimates], np.int64)
    begin = int(stamps[0])
    ours, theirs = associate((own - begin) * 1e-9, (stamps - begin) * 1e-9, MAX_STAMP_DIFFERENCE_S)
    if not len(ours):
        raise SourceError(f"none of {len(estimates)} sets of people has the stamp of a truth of {truth.path}; results "
                          "and truth must be of the same recording")
    partner = dict(zip(theirs.tolist(), ours.tolist(), strict=True))
    nobody = people_of({})
    for k, stamp_ns in enumerate(stamps.tolist()):
        estimate = estimates[partner[k]] if k in partner else RigEstimate(stamp_ns, nobody, {})
        yield RigMoment(stamp_ns, truth.cameras, truth.poses(stamp_ns), estimate.T_world_camera,
                        truth.people[stamp_ns], estimate.people, estimate.seen)


def score(truth: RigTruth, estimates: list[RigEstimate], chunk: int, folder: Path, *, max_frames: int = 0,
          pictures: bool = True) -> tuple[SequenceResult, dict[str, Any]]:
    """All moments; returns the metrics and the pictures of the worst ones, which are written to `folder`."""
    evaluation = RigEvaluation(chunk)
    worst: dict[int, tuple[float, int, RigMoment]] = {}  # the worst of each second
    for moment in moments(truth, estimates, max_frames):
        evaluation.add(moment)
        entry = (evaluation.badness(), evaluation.frame_count - 1, moment)
        second = moment.stamp_ns // 1_000_000_000
        if entry[0] > worst.get(second, (0.0,))[0]:
            worst[second] = entry
            if len(worst) > WORST_MOMENTS:
                del worst[min(worst, key=lambda s: worst[s][0])]
    chosen = sorted(worst.values(), key=lambda w: (-w[0], w[1])) if pictures else []
    return evaluation.finish(), {"worst": _draw(truth, chosen, folder), "depth": None}


def _draw(truth: RigTruth, chosen: list[tuple[float, int, RigMoment]], folder: Path) -> list[dict[str, Any]]:
    from human_scene_ros.sources.image_codec import encode_jpeg
    from human_scene_ros.viewer.evaluation_figures import rig_overlay

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    images: list[dict[str, Any]] = [{} for _ in chosen]
    last_ns = max((moment.stamp_ns for _, _, moment in chosen), default=0) + SAME_MOMENT_NS
    for name, topic in truth.images.items() if chosen else ():
        with open_source(truth.path, topic) as source:
            source.on_rejected = lambda error: None  # counted by who evaluates them
            for frame in source:
                if frame.stamp_ns > last_ns:
                    break
                for found, (_, _, moment) in zip(images, chosen, strict=True):
                    if abs(frame.stamp_ns - moment.stamp_ns) <= SAME_MOMENT_NS:
                        found[name] = frame.image
    drawn = []
    for rank, ((badness, index, moment), found) in enumerate(zip(chosen, images, strict=True)):
        file = f"worst_{rank}.jpg"
        (folder / file).write_bytes(encode_jpeg(rig_overlay(found, moment), 82))
        drawn.append({"file": file, "frame": index, "error": badness})
    return drawn


def evaluate_rig_job(folder: Path, job: EvaluationJob, on_frame: Callable[[], object]) -> dict[str, Any]:
    """One recording with `evaluate bag --rig`, in this process.

    Raises:
        SourceError: The recording cannot be read or lacks truth.
    """
    from human_scene_ros.commands.evaluate_job import dataset_of

    truth = read_rig_truth(Path(job.truth or job.path))
    began, cpu_began = time.perf_counter(), time.process_time()
    estimates, facts = run_rig(job, truth, on_frame)
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    result, pictures = score(truth, estimates, job.chunk, folder, max_frames=job.max_frames, pictures=job.pictures)
    info, rejected = facts.pop("weights"), facts.pop("rejected")
    weights = None if info is None else {"name": info.name, "sha256": info.sha256, "note": info.note}
    return output.write_sequence(folder, job.name, result, {
        "path": job.path, "image": "all cameras", "dataset": dataset_of(Path(job.path)), "dropped": 0,
        "rejected": len(rejected), "last_rejection": rejected[-1] if rejected else None,
        "rig": {"placing": job.rig, "cameras": list(truth.images), **facts},
        "system": {"fps": result.counts["frames"] / wall_s, "wall_s": wall_s, "cpu_s": cpu_s,
                   "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024},
        "pictures": pictures, "origin": output.provenance(dataclasses.asdict(job), weights)})


def evaluate_recorded_rig(folder: Path, name: str, results: Path, truth_path: Path, people_topic: str,
                          extrinsics_topic: str, chunk: int) -> dict[str, Any]:
    """`evaluate results --rig`.

    Raises:
        SourceError: A recording cannot be read, lacks topics or truth, or the two are not of the same time.
    """
    from human_scene_ros.commands.evaluate_job import dataset_of

    truth = read_rig_truth(truth_path)
    result, pictures = score(truth, recorded_rig(results, people_topic, extrinsics_topic), chunk, folder)
    return output.write_sequence(folder, name, result, {
        "path": str(results), "dataset": dataset_of(truth_path), "pictures": pictures,
        "rig": {"placing": "recorded", "cameras": list(truth.images)}})
