"""`human-scene demo-multi`: several cameras through the real ROS 2 nodes, fused, and a picture of the result.

One process each: bag_node, a reconstructor per camera or one for all, fusion_node, markers_node, record_node. The
recording is played as fast as the reconstructors acknowledge images, so that nothing is lost on a slow machine; this
process only watches. Numbers and picture come from what was recorded.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.commands.demo import add_run_arguments, prepared, run_demo, shipped_recording
from human_scene_ros.commands.fusion_scores import RigScores
from human_scene_ros.commands.processes import STALL_LIMIT_S, NodeProcesses, free_domain, require_ros
from human_scene_ros.commands.summary import format_value
from human_scene_ros.errors import SourceError
from human_scene_ros.evaluation.matching import match_nearest
from human_scene_ros.fusion.types import DetectionStatus
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert
from human_scene_ros.scene import TrackState
from human_scene_ros.sources.fusion_fields import CameraPlace, person_number
from human_scene_ros.sources.rig_file import rig_text

if TYPE_CHECKING:
    from human_scene_ros.nodes.observer import Observer

Array = NDArray[np.float64]

IMAGE_TOPIC = re.compile(r"/(\w+)/(image|image_raw)/compressed")
FUSION, PEOPLE = "/human_scene_fusion", "/people"
ASSOCIATIONS, STATUS = f"{FUSION}/associations", f"{FUSION}/status"
BODY_JOINTS, HEAD = 22, 15
START_LIMIT_S = 300.0
"""From the start of the processes until all are matched; every reconstructor loads torch."""

_SAME_MOMENT_NS = 100_000_000

IN_WAY = 2
"""Sets of images on their way; more would only wait."""


@dataclasses.dataclass(frozen=True)
class Rig:
    """What the input holds.

    Args:
        source: The recording.
        cameras: Names, from the topics.
        image: Camera -> base name of its image topic, "image" or "image_raw".
        images: Camera -> count of images.
        frames: Camera -> optical frame of its images.
        T_world_camera: Camera -> (4, 4).
        tf: /tf_static holds these frames; else the fusion gets the poses as a file.
        stamps_ns: (T,) all stamps of images, each once.
        world_frame: Parent of the cameras.
        truth_ids: Person numbers, in the order of `truth`.
        truth: (P, T, 22, 3) metres, NaN where unknown; P = 0 without truth.
    """

    source: Path
    cameras: tuple[str, ...]
    image: dict[str, str]
    images: dict[str, int]
    frames: dict[str, str]
    T_world_camera: dict[str, Array]
    tf: bool
    stamps_ns: NDArray[np.int64]
    world_frame: str
    truth_ids: tuple[int, ...]
    truth: Array


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("input", nargs="?", help="rosbag2 folder with /CAMERA/image/compressed (or image_raw) and "
                                                 "camera_info of every camera, poses on /tf_static (default: the one "
                                                 "that ships)")
    parser.add_argument("--cameras", default="", help="only these, for instance camera_0,camera_2 (default: all)")
    parser.add_argument("--shared", action="store_true", help="one reconstructor process, with one network, for all "
                                                              "cameras instead of one for each")
    add_run_arguments(parser, "out/demo_multi")


def run(arguments: argparse.Namespace) -> int:
    """Play, watch, read back, draw."""
    return run_demo(arguments, demo, table)


def demo(arguments: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole run; returns what is in summary.json.

    Raises:
        SourceError: The input is no recording of a rig, or the output folder holds something else.
        CheckpointError: The weights are missing or damaged.
        ProcessError: A node died or stalled; the text holds its last lines.
    """
    require_ros()
    from human_scene_ros.model.checkpoint import describe_weights

    rig = look_at(Path(arguments.input) if arguments.input else shipped_recording("recording_multi"),
                  tuple(arguments.cameras.split(",")) if arguments.cameras else ())
    weights = describe_weights(arguments.checkpoint or arguments.preset)
    say(f"input    {rig.source}: " + ", ".join(f"{name} {count}" for name, count in rig.images.items()) + " images"
        + (", with truth" if len(rig.truth) else ""))
    say(f"weights  {weights.name} {weights.sha256[:12]}: {weights.note or 'no note on what they are worth'}")
    out = prepared(arguments.out)

    with free_domain() as domain_id, NodeProcesses(domain_id, out / "log") as processes:
        from human_scene_ros.nodes.observer import Observer

        with Observer(domain_id) as observer:
            reconstructors = _reconstructors(rig, arguments.shared)
            for reconstructor in reconstructors.values():
                observer.watch_status(reconstructor.status)
            observer.watch_status(STATUS)
            observer.watch_people(PEOPLE)
            observer.watch_diagnostics()
            _start(processes, rig, reconstructors, arguments, out)
            say(f"nodes    bag, {', '.join(reconstructors)}, fusion, markers and record as processes on ROS "
                f"domain {domain_id}")
            _wait_complete(processes, observer, rig, reconstructors)
            total = min(sum(rig.images.values()), arguments.max_frames or sum(rig.images.values()))
            processes.follow(
                lambda: _counts(observer, reconstructors).done,
                lambda _: processes.exit_code("bag_node") == 0 and _counts(observer, reconstructors).done >= total,
                to_blame=("bag_node", *reconstructors, "fusion_node"), total=total, unit="image",
                say=None if arguments.json else say)
            processes.stop("record_node")  # first: it takes what is on its way while the others still run
            memory_mib = processes.peak_rss_mib
            processes.stop(*reconstructors, "fusion_node", "markers_node")
            counts, status = _counts(observer, reconstructors), observer.status(STATUS)
            assert status is not None  # `_counts` has counted by it
            summary: dict[str, Any] = {
                "frames_in": counts.frames_in, "frames_fused": counts.fused, "frames_dropped": counts.dropped,
                "frames_rejected": counts.rejected,
                "sets": observer.people, "sets_partial": int(status.sync_partial),
                "sets_per_second": round((observer.people - 1) / observer.fusing_s, 2) if observer.fusing_s else 0.0,
                "fusion_mean_ms": round(1e3 * float(status.inference_mean), 2),
                "reconstructors": len(reconstructors), "peak_rss_mib": memory_mib,
                "reconstructors_peak_rss_mib": round(sum(memory_mib[name] for name in reconstructors), 1)}
    summary["weights"] = {"name": weights.name, "sha256": weights.sha256, "note": weights.note}
    summary["input"] = str(rig.source)
    say("reading back what was recorded")
    _read_back(rig, arguments, out, summary)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


# --- before ------------------------------------------------------------------------------------------------------

def look_at(source: Path, only: tuple[str, ...] = ()) -> Rig:
    """Cameras, poses and truth of a recording.

    Args:
        source: The recording.
        only: Cameras to use; empty = all.

    Raises:
        SourceError: It is no recording, has fewer than two cameras, or does not say where they stand.
    """
    from human_scene_ros.commands.rig_recording import TRUTH_PEOPLE, read_rig_truth
    from human_scene_ros.sources.bag_reader import BagReader, header_stamp_ns

    known = read_rig_truth(source, only, people_needed=False)
    unusable = sorted(topic for topic in known.images.values() if not IMAGE_TOPIC.fullmatch(topic))
    moving = sorted(set(known.images) - set(known.standing))
    if unusable or moving:
        raise SourceError(f"{source}: " + (f"{', '.join(unusable)}: expected topics like /CAMERA/image/compressed"
                                           if unusable else f"the cameras {moving} move: /tf_static does not hold "
                                                            "their frames"))
    stamps, images = set(), dict.fromkeys(known.images, 0)
    names = {topic: name for name, topic in known.images.items()}
    with BagReader(source) as bag:
        for topic, _, data in bag.messages(list(names)):
            images[names[topic]] += 1
            stamps.add(header_stamp_ns(data))
        everybody = known.people if TRUTH_PEOPLE in bag.topics else {}  # what single cameras know is not played
    stamps_ns = np.array(sorted(stamps), np.int64)
    ids = sorted({int(number) for people in everybody.values() for number in people.number})
    truth = np.full((len(ids), len(stamps_ns), BODY_JOINTS, 3), np.nan)
    for k, stamp in enumerate(stamps_ns.tolist()):
        if (people := everybody.get(stamp)) is not None:
            truth[[ids.index(number) for number in people.number], k] = people.joints_world
    return Rig(source, tuple(known.images), {name: topic.split("/")[2] for name, topic in known.images.items()}, images,
               dict(known.frames), dict(known.standing), known.on_tf == set(known.images), stamps_ns,
               known.world_frame, tuple(ids), truth)


@dataclasses.dataclass(frozen=True)
class _Reconstructor:
    """A reconstructor process: name of its node, and the cameras that it serves."""

    node: str
    cameras: tuple[str, ...]

    @property
    def status(self) -> str:
        return f"{self.node}/status"


def _reconstructors(rig: Rig, shared: bool) -> dict[str, _Reconstructor]:
    """By name of the process."""
    if shared:
        return {"reconstructor": _Reconstructor("/human_scene", rig.cameras)}
    return {f"reconstructor_{name}": _Reconstructor(f"/{name}/human_scene", (name,)) for name in rig.cameras}


def _start(processes: NodeProcesses, rig: Rig, reconstructors: Mapping[str, _Reconstructor],
           arguments: argparse.Namespace, out: Path) -> None:
    from human_scene_ros.commands.rig_recording import TRUTH_PEOPLE

    body = str(Path(arguments.body).resolve()) if arguments.body else ""
    checkpoint = str(Path(arguments.checkpoint).resolve()) if arguments.checkpoint else ""
    # A replay at any speed: what belongs together waits for cameras that work, however slow the machine is.
    patience = {"sync.timeout": 20.0, "sync.dead_after": 3.0}
    # All live on the recording's clock, or what they say of themselves would lie years after what they see.
    statuses = [reconstructor.status for reconstructor in reconstructors.values()]
    for process, reconstructor in reconstructors.items():
        cameras = reconstructor.cameras
        common = {
            "model.preset": arguments.preset, "model.checkpoint": checkpoint, "model.body": body,
            "camera_pose": "static", "map.enabled": False, "input.transport": "compressed",
            "input.drop_policy": "all", "input.reliability": "reliable", "tf.bodies": "none"}
        if arguments.shared:
            processes.start(process, {**common, **patience, "cameras": cameras}, node="reconstructor_node",
                            remap={f"{name}/image": f"{name}/{rig.image[name]}" for name in cameras}, use_sim_time=True)
        else:
            processes.start(process, {**common, "camera_name": cameras[0]}, node="reconstructor_node",
                            namespace=cameras[0], remap={"image": rig.image[cameras[0]]}, use_sim_time=True)
    extrinsics: dict[str, Any] = {}
    if not rig.tf:
        file = out / "log" / "rig.yaml"
        file.write_text(rig_text(rig.world_frame, [CameraPlace(name, rig.frames[name], rig.T_world_camera[name])
                                                   for name in rig.cameras]))
        extrinsics = {"extrinsics.file": str(file.resolve()),
                      **{f"{name}.extrinsics_source": "file" for name in rig.cameras}}
    processes.start("fusion_node", {
        "cameras": rig.cameras, "body": body, "world_frame": rig.world_frame, **patience, "extrinsics.wait": 2.0,
        "person.min_views": 2, **extrinsics}, use_sim_time=True)
    processes.start("markers_node", {"source": "people", "body": body}, use_sim_time=True)
    played = [f"/{name}/{topic}" for name in rig.cameras for topic in (
        "camera_info", f"{rig.image[name]}/compressed")]
    processes.start("record_node", {
        "output": str((out / "scene").resolve()), "stamps": "header", "compress": True, "wait_timeout": START_LIMIT_S,
        "topics": [*played, *(f"/{name}/human_scene/bodies" for name in rig.cameras), *statuses, PEOPLE, "/extrinsics",
                   ASSOCIATIONS, STATUS, "/tf", "/tf_static", "/diagnostics", "/human_scene_markers/skeletons",
                   "/human_scene_markers/trails"]})
    truth = [TRUTH_PEOPLE] if len(rig.truth) else []
    # Three subscribers of each camera's images: a reconstructor, the recorder, and this process, which comes last and
    # so begins it.
    processes.start("bag_node", {
        "input": str(rig.source.resolve()), "rate": 0.0, "status": statuses, "max_images": arguments.max_frames,
        "topics": [*played, "/tf_static", *truth],
        "wait_for_subscribers": 3, "wait_timeout": START_LIMIT_S, "ack_timeout": STALL_LIMIT_S,
        "max_outstanding": min(IN_WAY * len(rig.cameras), 32)})


# --- while it runs -----------------------------------------------------------------------------------------------

def _wait_complete(processes: NodeProcesses, observer: Observer, rig: Rig,
                   reconstructors: Mapping[str, _Reconstructor]) -> None:
    """Until every process is ready and has found the others."""
    conditions: list[tuple[str, Callable[[], bool]]] = [
        *((f"{name} to load its weights", lambda n=name: processes.says(n, "ready: ")) for name in reconstructors),
        ("fusion_node to be ready", lambda: processes.says("fusion_node", "ready: ")),
        ("record_node to find all topics", lambda: processes.says("record_node", "ready: ")),
        *((f"{process} to find fusion_node and record_node", lambda r=r: all(
            observer.connected(r.node, f"Input {name}", "bodies") >= 2 for name in r.cameras))
          for process, r in reconstructors.items()),
        ("fusion_node to find markers_node, record_node and this process",
         lambda: observer.connected(FUSION, "Sync", "people") >= 3)]
    processes.wait_for(conditions, START_LIMIT_S)
    processes.expect_end("bag_node")
    for name in rig.cameras:
        observer.watch_images(f"/{name}/{rig.image[name]}/compressed")


@dataclasses.dataclass(frozen=True)
class _Counts:
    """What became of the images, through reconstructors and fusion."""

    frames_in: int
    fused: int
    dropped: int
    rejected: int

    @property
    def done(self) -> int:
        return self.fused + self.dropped + self.rejected


def _counts(observer: Observer, reconstructors: Mapping[str, _Reconstructor]) -> _Counts:
    fusion = observer.status(STATUS)
    statuses = [s for s in (observer.status(r.status) for r in reconstructors.values()) if s is not None]
    all_of_them = statuses if fusion is None else [*statuses, fusion]
    return _Counts(sum(int(s.frames_in) for s in statuses), 0 if fusion is None else int(fusion.frames_processed),
                   sum(int(s.frames_dropped) for s in all_of_them), sum(int(s.frames_rejected) for s in all_of_them))


# --- afterwards --------------------------------------------------------------------------------------------------

@dataclasses.dataclass
class _Recorded:
    """What was recorded, by stamp; `reconstruct_ms` by camera, or "all" for one reconstructor."""

    bodies: dict[str, dict[int, Any]]
    sets: int
    people: dict[int, Any]
    associations: dict[int, Any]
    reconstruct_ms: dict[str, float]


def _recorded(folder: Path, cameras: tuple[str, ...]) -> _Recorded:
    from human_scene_ros.sources.bag_reader import BagReader
    from human_scene_ros.sources.message_fields import stamp_ns_of

    found = _Recorded({name: {} for name in cameras}, 0, {}, {}, {})
    with BagReader(folder) as bag:
        for topic, _, data in bag.messages([t for t in bag.topics if "/human_scene/" in t or t in (
                PEOPLE, ASSOCIATIONS)]):
            message: Any = bag.deserialize(topic, data)
            stamp = stamp_ns_of(message.header.stamp)
            if topic == PEOPLE:
                found.sets += 1  # a camera that returns late for its moment makes a second set of it
                found.people[stamp] = message
            elif topic == ASSOCIATIONS:
                found.associations[stamp] = message
            elif topic.endswith("/bodies"):
                found.bodies[topic.split("/")[1]][stamp] = message
            elif math.isfinite(message.inference_mean):
                owner = topic.split("/")[1]
                found.reconstruct_ms[owner if owner in cameras else "all"] = 1e3 * float(message.inference_mean)
    return found


def _read_back(rig: Rig, arguments: argparse.Namespace, out: Path, summary: dict[str, Any]) -> None:
    """Errors and picture from the recording; completes `summary`."""
    found = _recorded(out / "scene", rig.cameras)
    if found.sets < summary["sets"]:  # this process may have looked later than the recorder, not earlier
        raise SourceError(f"{out / 'scene'} holds {found.sets} sets of {summary['sets']} published ones: the "
                          "recorder lost some")
    summary["sets"] = found.sets
    seen = {p.person_id for m in found.people.values() for p in m.people if p.state == TrackState.CONFIRMED}
    summary.update(
        cameras=list(rig.cameras), person_ids=len(seen),
        people=max((sum(p.state == TrackState.CONFIRMED for p in m.people) for m in found.people.values()), default=0),
        reconstruct_mean_ms={name: round(ms, 2) for name, ms in found.reconstruct_ms.items()},
        scene_bytes=sum(path.stat().st_size for path in (out / "scene").iterdir()),
        errors={k: None if isinstance(v, float) and math.isnan(v) else v for k, v in _errors(rig, found).items()}
        if len(rig.truth) else None)
    _draw(rig, found, arguments, out, summary)


def _errors(rig: Rig, found: _Recorded) -> dict[str, Any]:
    """Scores of the fusion and of each camera alone against the truth."""
    scores = RigScores(rig.truth)
    single = np.full((len(rig.cameras), *rig.truth.shape), np.nan)
    who: dict[tuple[str, int, str], int] = {}  # camera, stamp, track -> true person
    def place(stamp_ns: int) -> int:
        return int(np.abs(rig.stamps_ns - stamp_ns).argmin())

    detected = np.zeros(3, np.int64)  # right, all, true
    for v, name in enumerate(rig.cameras):
        for stamp, message in found.bodies[name].items():
            k = place(stamp)
            bodies = [b for b in message.bodies if b.track_state <= TrackState.CONFIRMED]
            joints = np.array([np.array(b.joints, np.float64).reshape(-1, 3)[:BODY_JOINTS] for b in bodies]).reshape(
                -1, BODY_JOINTS, 3)
            camera = PinholeCamera(int(message.width), int(message.height), *(float(x) for x in message.intrinsics))
            true = apply(invert(rig.T_world_camera[name]), rig.truth[:, k])
            ahead = true[:, HEAD, 2] > 0.1
            uv = np.where(ahead[:, None], camera.project(true[:, HEAD]), np.nan)
            inside = ahead & (uv >= 0.0).all(axis=1) & (uv < (camera.width, camera.height)).all(axis=1)
            uv[~inside] = np.nan
            pairs = match_nearest(camera.project(joints[:, HEAD]), uv, 0.05 * camera.width)
            detected += (len(pairs), len(bodies), int(inside.sum()))
            for i, p in pairs:
                single[v, p, k] = apply(rig.T_world_camera[name], joints[i])
                who[name, stamp, str(bodies[i].track_id)] = p
    index = {name: v for v, name in enumerate(rig.cameras)}
    for stamp, rows in found.associations.items():
        usable = [i for i, s in enumerate(rows.status) if s != DetectionStatus.INVALID]
        scores.add_associations(
            np.array([person_number(rows.person_ids[i]) for i in usable], np.int64),
            np.array([who.get((rows.camera_names[i], stamp, rows.track_ids[i]), -1) for i in usable], np.int64),
            np.array([index[rows.camera_names[i]] for i in usable], np.int64))
    for stamp, message in found.people.items():
        people = [p for p in message.people if p.state == TrackState.CONFIRMED]
        scores.add_people(place(stamp), np.array([person_number(p.person_id) for p in people], np.int64), np.array(
            [np.array(p.body.joints, np.float64).reshape(-1, 3)[:BODY_JOINTS] for p in people]).reshape(
                -1, BODY_JOINTS, 3))
    return {"detection_recall": detected[0] / max(detected[2], 1),
            "detection_precision": detected[0] / max(detected[1], 1), **scores.result(single)}


def _draw(rig: Rig, found: _Recorded, arguments: argparse.Namespace, out: Path, summary: dict[str, Any]) -> None:
    from PIL import Image

    from human_scene_ros.body.convert import transformed
    from human_scene_ros.body.model import load_body_model
    from human_scene_ros.sources.reader import open_source
    from human_scene_ros.sources.recorded_run import body_from_message
    from human_scene_ros.viewer.overview import Moment, PersonView
    from human_scene_ros.viewer.rig_overview import RigCamera, RigOverview, draw_rig_overview

    model = load_body_model(arguments.body or None)
    moment = _moment(rig, found)
    people = [body_from_message(p.body) for p in found.people[moment].people] if moment in found.people else []
    cameras = []
    for name in rig.cameras:
        T_world_camera = rig.T_world_camera[name]
        T_camera_world = invert(T_world_camera)
        joints = [apply(T_camera_world, p.joints_camera.astype(np.float64)) for p in people]
        views = tuple(PersonView(p.track_id, at, transformed(model, p.parameters, T_camera_world),
                                 p.track_state == TrackState.CONFIRMED)
                      for p, at in zip(people, joints, strict=True) if at[:, 2].min() > 0.1)
        shown, fov = None, math.radians(60.0)
        nearest_ns = _SAME_MOMENT_NS
        with open_source(rig.source, f"/{name}/{rig.image[name]}/compressed", f"/{name}/camera_info") as source:
            source.on_rejected = lambda error: None  # its reconstructor has counted it
            for frame in source:
                if frame.camera is not None and abs(frame.stamp_ns - moment) < nearest_ns:
                    nearest_ns = abs(frame.stamp_ns - moment)
                    fov = 2.0 * math.atan(frame.camera.width / (2.0 * frame.camera.fx))
                    shown = Moment(frame.image, frame.camera, T_world_camera, views, np.zeros((2, 2)))
                if frame.stamp_ns > moment + _SAME_MOMENT_NS:
                    break
        silent = max(rig.images.values()) - rig.images[name]
        cameras.append(RigCamera(name, shown, T_world_camera, fov, f"{silent} images missing" if silent else ""))
    trails: dict[int, list[Array]] = {}
    for k, stamp in enumerate(sorted(found.people)):
        for p in found.people[stamp].people:
            trail = trails.setdefault(person_number(p.person_id), [])
            trail.extend([np.full(2, np.nan)] * (k - len(trail)))
            trail.append(np.array(p.body.joints, np.float64)[:2])
    overview = RigOverview(
        cameras, {number: np.array(trail) for number, trail in trails.items() if len(trail) > 5},
        [t[np.isfinite(t).all(axis=1)] for t in rig.truth[:, :, 0, :2]],
        {p.track_id: p.joints_camera[0, :2].astype(np.float64) for p in people},
        subtitle=f"weights: {summary['weights']['name']} {summary['weights']['sha256'][:12]}", facts=_facts(summary))
    Image.fromarray(draw_rig_overview(overview, model)).save(out / "overview.png")


def _moment(rig: Rig, found: _Recorded) -> int:
    """The stamp at which people are seen by most cameras; the later half first, trails have grown by then."""
    def worth(stamp: int) -> float:
        views = [p.num_views - 2 if p.state == TrackState.CONFIRMED else -1 for p in found.people[stamp].people]
        return sum(views) + (0.5 if stamp > np.median(rig.stamps_ns) else 0.0)

    return max(sorted(found.people), key=worth)


_SHOWN = (
    ("assoc_precision", "association precision", "association precision", 100.0, " %"),
    ("assoc_recall", "association recall", "recall", 100.0, " %"),
    ("idf1", "IDF1", "IDF1", 100.0, " %"),
    ("id_switches", "identity switches", "switches", 1.0, ""),
    ("wa_mpjpe_single_mm", "WA-MPJPE, one camera", "WA-MPJPE one camera", 1.0, " mm"),
    ("wa_mpjpe_fused_mm", "WA-MPJPE, fused", "fused", 1.0, " mm"),
    ("mpjpe_abs_single_mm", "place and pose in the room, one camera", "", 1.0, " mm"),
    ("mpjpe_abs_fused_mm", "place and pose in the room, fused", "", 1.0, " mm"),
    ("detection_recall", "heads found by the network", "", 100.0, " %"),
    ("detection_precision", "detections that are people", "", 100.0, " %"),
)
"""Key, name in the table, short name under the picture ("" = only in the table), factor, unit."""


def _facts(summary: dict[str, Any]) -> dict[str, str]:
    found = {"sets": str(summary["sets"]), "fusion": f"{summary['fusion_mean_ms']:.1f} ms"}
    for key, _, short, factor, unit in _SHOWN:
        value = (summary["errors"] or {}).get(key)
        if short and value is not None:
            found[short] = format_value(value, factor, unit)
    return found


def table(summary: dict[str, Any]) -> str:
    """The text that ends a run."""
    network = summary["reconstruct_mean_ms"].values()
    rows = [("images in / fused / dropped / rejected", " / ".join(
                str(summary[f"frames_{kind}"]) for kind in ("in", "fused", "dropped", "rejected"))),
            ("sets / with a camera missing", f"{summary['sets']} / {summary['sets_partial']}"),
            ("speed", f"{summary['sets_per_second']:.1f} sets of {len(summary['cameras'])} per second"),
            ("network per image, mean", f"{sum(network) / max(len(network), 1):.0f} ms"),
            ("reconstructors, peak memory",
             f"{summary['reconstructors']}, {summary['reconstructors_peak_rss_mib']:.0f} MiB"),
            ("fusion per set, by the clock", f"{summary['fusion_mean_ms']:.1f} ms"),
            ("people at once / ids in all", f"{summary['people']} / {summary['person_ids']}")]
    rows += [(name, format_value((summary["errors"] or {}).get(key), factor, unit))
             for key, name, _, factor, unit in _SHOWN if key in (summary["errors"] or {})]
    width = max(len(name) for name, _ in rows)
    weights = summary["weights"]
    return "\n".join([*(f"  {name:<{width}}  {value}" for name, value in rows), "",
                      f"  weights: {weights['name']}, SHA-256 {weights['sha256'][:12]}",
                      f"  {weights['note'] or 'the file says nothing about what these weights are worth'}"])
