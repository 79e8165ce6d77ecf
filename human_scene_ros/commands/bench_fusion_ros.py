"""`human-scene bench fusion --ros`: the benchmark's clips as messages of N cameras through a real fusion_node.

The cameras' messages are sent from this process at the stamps of the clip, `--rate` times as fast, the node runs in
its own. A node that does not keep up loses messages, which are counted. People and associations that come back are
scored as those of the library are. The node gets the library's settings, for its own defaults are those of the weights
that ship. The skeleton is the benchmark's, cut to the 22 joints that messages hold.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from human_scene_ros.commands.bench_fusion import single_view_joints
from human_scene_ros.commands.fusion_clip import (
    BODY_JOINTS,
    START_NS,
    WORLD_FRAME,
    ClipMessage,
    camera_names,
    clip_messages,
    write_body,
)
from human_scene_ros.commands.fusion_scores import RigScores
from human_scene_ros.commands.processes import NodeProcesses, free_domain, require_ros
from human_scene_ros.fusion.config import FusionConfig
from human_scene_ros.scene import TrackState
from human_scene_ros.sources.fusion_fields import CameraPlace, person_number
from human_scene_ros.sources.message_fields import stamp_ns_of
from human_scene_ros.sources.rig_file import rig_text
from human_scene_ros.synthetic.multiview import FPS, MultiviewClip

_QUIET_S = 2.0
"""Nothing that came for so long comes no more."""


def run_clip_over_ros(clip: MultiviewClip, rate: float = 1.0, association: str = "mahalanobis") -> dict[str, Any]:
    """Accuracy, latency and time per set of a clip through the node.

    `ms_per_frame_p50` is the node's own median, from arrays to people, over the last 1000 sets; messages are read and
    written besides.

    Args:
        clip: Detections and truth.
        rate: Speed; 1 = as fast as the cameras.
        association: assoc.cost of the node.

    Raises:
        ProcessError: There is no ROS here, or the node died.
    """
    require_ros()
    cameras, library = camera_names(clip), FusionConfig()
    with tempfile.TemporaryDirectory() as folder, free_domain() as domain_id, NodeProcesses(
            domain_id, Path(folder) / "log") as processes:
        body, rig = Path(folder) / "body.npz", Path(folder) / "rig.yaml"
        write_body(body)
        rig.write_text(rig_text(WORLD_FRAME, [CameraPlace(name, f"{name}_optical", T) for name, T in zip(
            cameras, clip.T_world_camera_given, strict=True)]))
        messages = clip_messages(clip, body)
        processes.start("fusion_node", {
            "cameras": cameras, "body": str(body), "world_frame": WORLD_FRAME, "extrinsics.file": str(rig),
            "assoc.cost": association, "assoc.depth_noise": library.depth_fraction,
            "assoc.sure_score": library.sure_score, "diagnostics.period": 0.2,
            "sync.timeout": 0.1 / rate, "sync.dead_after": 1.0 / rate,
            **{f"{name}.extrinsics_source": "file" for name in cameras}})
        people, associations, sent_s, status, step_p50_ms = _exchange(processes, domain_id, cameras, messages, rate)
    scores = _score(clip, messages, people, associations)
    latency = [came - max(sent_s[name, k] for name in used) for came, used, k in (
        (came, message.cameras_used, _frame(message)) for came, message in people)
        if all((name, k) in sent_s for name in used) and used]
    return scores | {
        "latency_p50_ms": 1e3 * float(np.percentile(latency, 50)) if latency else float("nan"),
        "latency_p95_ms": 1e3 * float(np.percentile(latency, 95)) if latency else float("nan"),
        "ms_per_frame_p50": step_p50_ms, "sets": len(people),
        "sets_partial": int(status.sync_partial), "messages_in": int(status.frames_in),
        "messages_dropped": int(status.frames_dropped), "messages_lost": len(messages) - int(status.frames_in),
        "frames": clip.truth.shape[1]}


def _exchange(processes: NodeProcesses, domain_id: int, cameras: list[str], messages: list[ClipMessage],
              rate: float) -> tuple[list[tuple[float, Any]], list[Any], dict[tuple[str, int], float], Any, float]:
    """Send everything in time; what came back with its time of arrival, when each message was sent, the last status and
    the median duration of a set that the node reports, ms."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import SingleThreadedExecutor

    from human_scene_ros.msg import FusedPersonArray, FusionAssociations, SceneStatus, SmplxBodyArray
    from human_scene_ros.nodes import convert, qos

    people: list[tuple[float, Any]] = []
    associations: list[Any] = []
    statuses: list[Any] = []
    reports: list[Any] = []
    sent_s: dict[tuple[str, int], float] = {}
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=domain_id)
    node = rclpy.create_node("human_scene_bench", context=context, start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    try:
        publishers = {name: node.create_publisher(SmplxBodyArray, f"/{name}/human_scene/bodies", qos.reliable(50))
                      for name in cameras}
        node.create_subscription(FusedPersonArray, "/people", lambda m: people.append((time.monotonic(), m)),
                                 qos.reliable(200))
        node.create_subscription(FusionAssociations, "/human_scene_fusion/associations", associations.append,
                                 qos.reliable(200))
        node.create_subscription(SceneStatus, "/human_scene_fusion/status", statuses.append, qos.latched(10))
        node.create_subscription(DiagnosticArray, "/diagnostics", reports.append, qos.reliable(10))
        filled = [convert.fill(SmplxBodyArray(), m.fields) for m in messages]
        thread = threading.Thread(target=spin, name="bench", daemon=True)
        thread.start()
        processes.wait_for([
            ("fusion_node to subscribe", lambda: bool(
                all(p.get_subscription_count() for p in publishers.values()) and statuses)),
            ("fusion_node to find this process", lambda: int(_figures(reports).get("people_subscribers", 0)) > 0)])
        begun_s = time.monotonic()
        for message, content in zip(messages, filled, strict=True):
            due_s = begun_s + (message.stamp_ns - messages[0].stamp_ns) * 1e-9 / rate
            time.sleep(max(0.0, due_s - time.monotonic()))
            sent_s[message.camera, int(message.fields["sequence"])] = time.monotonic()
            publishers[message.camera].publish(content)
        came, came_s = 0, time.monotonic()

        def fused() -> bool:
            nonlocal came, came_s
            status = statuses[-1]
            if status.frames_in != came:
                came, came_s = status.frames_in, time.monotonic()
            return status.frames_pending == 0 and (came >= len(messages) or time.monotonic() - came_s > _QUIET_S)

        processes.wait_for([("fusion_node to fuse what has come", fused)])
        reports.clear()
        processes.wait_for([("fusion_node to report on everything", lambda: bool(_figures(reports)))])
        stop.set()
        thread.join(timeout=5.0)
    finally:
        stop.set()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.shutdown(context=context)
    return people, associations, sent_s, statuses[-1], float(_figures(reports)["step_p50_ms"])


def _figures(reports: list[Any]) -> dict[str, str]:
    """What the node said last of itself."""
    return {v.key: v.value for r in reports[-1:] for s in r.status if s.name == "human_scene_fusion: Sync"
            for v in s.values}


def _frame(message: Any) -> int:
    """Number of the clip's frame that a set belongs to."""
    return round((stamp_ns_of(message.header.stamp) - START_NS) * 1e-9 * FPS)


def _score(clip: MultiviewClip, messages: list[ClipMessage], people: list[tuple[float, Any]],
           associations: list[Any]) -> dict[str, Any]:
    """The library's scores from what came over the wire."""
    frames = clip.truth.shape[1]
    scores = RigScores(clip.truth[:, :, :BODY_JOINTS])
    index = {name: v for v, name in enumerate(camera_names(clip))}
    who: dict[tuple[str, str], dict[int, int]] = {}  # camera and track -> stamp -> true person
    for message in messages:
        for row, track in zip(message.rows, message.track_ids, strict=True):
            who.setdefault((message.camera, track), {})[message.stamp_ns] = int(clip.person[row])
    for message in associations:
        at_ns = stamp_ns_of(message.header.stamp)
        known = [who[key] for key in zip(message.camera_names, message.track_ids, strict=True)]
        # A set holds of each camera the frame nearest to it.
        truth = [rows[min(rows, key=lambda s: abs(s - at_ns))] for rows in known]
        scores.add_associations(np.array([person_number(p) for p in message.person_ids], np.int64),
                                np.array(truth, np.int64),
                                np.array([index[name] for name in message.camera_names], np.int64))
    for _, message in people:
        found = [p for p in message.people if p.state == TrackState.CONFIRMED]
        joints = np.array([np.array(p.body.joints, np.float64).reshape(-1, 3)[:BODY_JOINTS] for p in found])
        at = (stamp_ns_of(message.header.stamp) - START_NS) * 1e-9 * FPS
        before = min(max(int(np.floor(at)), 0), frames - 1)
        after, share = min(before + 1, frames - 1), min(max(at - before, 0.0), 1.0)
        truth_now = (1.0 - share) * scores.truth[:, before] + share * scores.truth[:, after]
        scores.add_people(min(max(round(at), 0), frames - 1), np.array(
            [person_number(p.person_id) for p in found], np.int64), joints.reshape(-1, BODY_JOINTS, 3), truth_now)
    return scores.result(single_view_joints(clip)[..., :BODY_JOINTS, :])
