"""The fusion node over real topics: many cameras, dead ones, late ones, wrong poses, nobody and a crowd."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from ros_graph import Graph, Process, graph  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from human_scene_ros.commands.fusion_clip import (  # noqa: E402
    START_NS,
    WORLD_FRAME,
    ClipMessage,
    camera_names,
    clip_messages,
    write_body,
)
from human_scene_ros.geometry.transform import make_transform  # noqa: E402
from human_scene_ros.msg import (  # noqa: E402
    CameraExtrinsicsArray,
    FusedPerson,
    FusedPersonArray,
    FusionAssociations,
    SceneStatus,
    SmplxBodyArray,
)
from human_scene_ros.nodes import convert, qos  # noqa: E402
from human_scene_ros.sources.bag_writer import SceneBagWriter  # noqa: E402
from human_scene_ros.sources.fusion_fields import CameraPlace  # noqa: E402
from human_scene_ros.sources.message_fields import BODY_ARRAY, stamp_ns_of, time_fields, transforms_fields  # noqa: E402
from human_scene_ros.sources.rig_file import read_rig, rig_text  # noqa: E402
from human_scene_ros.srv import CalibrateExtrinsics, MergeIds  # noqa: E402
from human_scene_ros.synthetic.multiview import MultiviewConfig, generate  # noqa: E402

pytestmark = pytest.mark.ros

NODE = "/human_scene_fusion"
PERIOD_S = 0.1
EVERY = 3  # of the clip's 30 Hz: what a busy machine follows with ease
PATIENCE = {"sync.timeout": 20.0, "sync.dead_after": 20.0}  # that machine may also stand still for a second


class Rig:
    """A clip's cameras as publishers, the node, and everything that it says."""

    def __init__(self, g: Graph, folder: Path, clip: Any, parameters: dict[str, Any]) -> None:
        self.g, self.clip, self.cameras = g, clip, camera_names(clip)
        body = folder / "body.npz"
        write_body(body)
        self.messages = [m for m in clip_messages(clip, body) if m.fields["sequence"] % EVERY == 0]
        self.publishers = {n: g.publisher(SmplxBodyArray, f"/{n}/human_scene/bodies", qos.reliable(50))
                           for n in self.cameras}
        self.sent = 0
        self.people = g.collect(FusedPersonArray, "/people")
        self.associations = g.collect(FusionAssociations, f"{NODE}/associations")
        self.status = g.collect(SceneStatus, f"{NODE}/status", qos.latched())
        self.extrinsics = g.collect(CameraExtrinsicsArray, "/extrinsics", qos.latched())
        self.process: Process = g.start("fusion_node", {
            "cameras": self.cameras, "body": str(body), "diagnostics.period": 0.2, **PATIENCE, **parameters})
        self.process.wait_output("ready: ")
        g.wait(lambda: all(p.get_subscription_count() for p in self.publishers.values()), "subscriptions")
        g.wait_connected("human_scene_fusion: Sync", "people")

    def play(self, first: int, last: int, *, without: Iterable[str] = (), shift_ns: int = 0, empty: bool = False,
             late: dict[str, float] | None = None, offset_ns: dict[str, int] | None = None,
             spoiled: str = "", lost: str = "") -> list[FusedPersonArray]:
        """Publish frames [first, last) in real time; the people that came meanwhile.

        Args:
            first: Number of the first set.
            last: Number after the last.
            without: Cameras that are silent.
            shift_ns: Added to all stamps.
            empty: All cameras see nobody.
            late: Camera -> seconds its messages arrive late.
            offset_ns: Camera -> error of its clock.
            spoiled: Camera whose first body of every message is nowhere (NaN).
            lost: Camera that says that it does not know where it is (NaN in camera_pose).
        """
        before = len(self.people)
        chosen = [m for m in self.messages if first <= m.fields["sequence"] // EVERY < last and m.camera not in without]
        due = [((m.fields["sequence"] // EVERY - first) * PERIOD_S + (late or {}).get(m.camera, 0.0), k)
               for k, m in enumerate(chosen)]
        ready = [self._filled(m, shift_ns + (offset_ns or {}).get(m.camera, 0), empty) for m in chosen]
        for message, sent in zip(chosen, ready, strict=True):
            if message.camera == spoiled:
                sent.bodies[0].joints = [math.nan] * len(sent.bodies[0].joints)
            if message.camera == lost:
                sent.camera_pose.pose.orientation.w = math.nan
        start = time.monotonic()
        for at, k in sorted(due):
            while (left := start + at - time.monotonic()) > 0.0:
                self.g.spin(min(left, 0.01))
            self.publishers[chosen[k].camera].publish(ready[k])
        self.sent += len(chosen)
        self.g.wait(lambda: self.status and self.status[-1].frames_in >= self.sent
                    and self.status[-1].frames_pending == 0, "every message to be fused or dropped")
        self.g.spin(0.2)
        return self.people[before:]

    @staticmethod
    def _filled(message: ClipMessage, shift_ns: int, empty: bool) -> Any:
        fields = dict(message.fields)
        fields["header"] = {**fields["header"], "stamp": time_fields(message.stamp_ns + shift_ns)}
        if empty:
            fields["bodies"] = []
        return convert.fill(SmplxBodyArray(), fields)

    def error_m(self, array: FusedPersonArray, shift_ns: int = 0) -> float:
        """Worst distance of a published pelvis from the nearest true one."""
        t = (stamp_ns_of(array.header.stamp) - START_NS - shift_ns) * 30e-9
        truth = self.clip.truth[:, min(max(round(t), 0), self.clip.truth.shape[1] - 1), 0]
        found = [np.frombuffer(p.body.joints, np.float32).reshape(-1, 3)[0] for p in array.people]
        return max((float(np.linalg.norm(truth - f, axis=1).min()) for f in found), default=0.0)


def confirmed(array: FusedPersonArray) -> list[str]:
    return [p.person_id for p in array.people if p.state == 1]


def test_cameras_from_a_file_one_dies_and_returns_and_time_jumps(tmp_path: Path):
    clip = generate(MultiviewConfig("ring", 4, 3, 300, 1))
    cameras = camera_names(clip)
    rig_file = tmp_path / "rig.yaml"
    rig_file.write_text(rig_text(WORLD_FRAME, [CameraPlace(n, f"{n}_optical", T)
                                               for n, T in zip(cameras, clip.T_world_camera_given, strict=True)]))
    with graph(72, tmp_path) as g:
        rig = Rig(g, tmp_path, clip, {"extrinsics.file": str(rig_file), "diagnostics.silence_warning": 1.5,
                                      "sync.dead_after": 1.0,
                                      **{f"{n}.extrinsics_source": "file" for n in cameras}})
        from tf2_msgs.msg import TFMessage

        transforms = g.collect(TFMessage, "/tf")
        # --- everybody works
        arrays = rig.play(0, 20)
        assert len(arrays) == pytest.approx(20, abs=1)
        ids = set(confirmed(arrays[-1]))
        assert len(ids) == 3 and all(set(confirmed(a)) <= ids for a in arrays)
        assert max(rig.error_m(a) for a in arrays[5:]) < 0.35
        assert list(arrays[-1].cameras_expected) == cameras and set(arrays[-1].cameras_used) == set(cameras)
        person = arrays[-1].people[0]
        assert person.num_views == len(person.camera_names) == len(person.track_ids) == len(person.view_residuals)
        assert sum(person.view_weights) == pytest.approx(1.0, abs=1e-5)
        assert person.body.track_id == person.body.person_id == person.person_id and person.body.joint_set == 2
        assert all(a.header.frame_id == WORLD_FRAME for a in arrays)
        sent = {t.child_frame_id: t for m in transforms for t in m.transforms}
        assert {f"person_{i}" for i in ids} <= set(sent) and sent[f"person_{min(ids)}"].header.frame_id == WORLD_FRAME
        rows = rig.associations[-1]
        assert len(rows.camera_names) == len(rows.track_ids) == len(rows.person_ids) == len(rows.residuals) > 8

        # --- one camera dies: as many sets as before, one warning; it returns
        silence = f"no bodies of camera {cameras[3]}"
        before = rig.process.output.count(silence)  # on a slow machine all cameras are silent before the first image
        arrays = rig.play(20, 42, without=[cameras[3]])
        assert len(arrays) == pytest.approx(22, abs=1), "the rate of sets must not change"
        assert set(arrays[-1].cameras_used) == set(cameras[:3]) and set(confirmed(arrays[-1])) == ids
        assert rig.process.output.count(silence) == before + 1
        arrays = rig.play(42, 50)
        assert set(arrays[-1].cameras_used) == set(cameras) and set(confirmed(arrays[-1])) == ids
        assert f"camera {cameras[3]} is back" in rig.process.output

        # --- nobody there: sets go on, people are extrapolated for a moment, then gone
        arrays = rig.play(50, 60, empty=True)
        assert len(arrays) == pytest.approx(10, abs=1) and not arrays[-1].people
        coasting = [p for a in arrays for p in a.people]
        assert {p.state for p in coasting} == {2} and max(p.last_seen for p in coasting) <= 0.51

        # --- the recording loops: new segment, people at once
        arrays = rig.play(0, 12)
        assert arrays[-1].segment == 1 and len(confirmed(arrays[-1])) == 3 and not ids & set(confirmed(arrays[-1]))
        assert len(arrays) >= 10 and rig.status[-1].world_source == SceneStatus.WORLD_FILE

        # --- services: merging, poses from people
        keep, drop = sorted(confirmed(arrays[-1]))[:2]
        assert g.call(MergeIds, f"{NODE}/merge_ids", MergeIds.Request(keep=keep, drop=drop)).success
        assert not g.call(MergeIds, f"{NODE}/merge_ids", MergeIds.Request(keep=keep, drop="p9999")).success
        alias = g.collect(String, f"/humans/persons/{drop}/alias", qos.latched())  # REP-155
        g.wait(lambda: [message.data for message in alias] == [keep], "the alias, latched")
        set_parameter(g, "output_rate", 2.0)  # the set in which the id ends is none of those that are published
        arrays = rig.play(12, 24)
        assert 2 <= len(arrays) <= 4 and keep in confirmed(arrays[-1])
        assert [p.state for a in arrays for p in a.people if p.person_id == drop] == [FusedPerson.STATE_LOST]
        set_parameter(g, "output_rate", 0.0)
        arrays = rig.play(24, 44)
        assert keep in confirmed(arrays[-1]) and drop not in {p.person_id for a in arrays for p in a.people}
        answer = g.call(CalibrateExtrinsics, f"{NODE}/calibrate_extrinsics", CalibrateExtrinsics.Request(
            cameras=cameras[:2], apply=True, save_path=str(tmp_path / "found.yaml")))
        assert answer.success and len(answer.extrinsics) == 2, answer.message
        assert set(read_rig(tmp_path / "found.yaml")) == set(cameras[:2])
        assert "camera_1" in (tmp_path / "found.urdf").read_text()
        g.wait(lambda: rig.status[-1].world_source == SceneStatus.WORLD_PEOPLE, "a status that says so")

        # --- segments go on counting whatever happens; people are kept while the node is inactive
        before = set(confirmed(arrays[-1]))
        assert g.call(Trigger, f"{NODE}/reset_ids", Trigger.Request()).success
        arrays = rig.play(44, 50)
        assert arrays[-1].segment == 2 and not before & set(confirmed(arrays[-1]))
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            assert g.call(ChangeState, f"{NODE}/change_state", ChangeState.Request(
                transition=Transition(id=transition))).success
        g.wait(lambda: all(p.get_subscription_count() for p in rig.publishers.values()), "subscriptions")
        rig.sent = 0
        kept, arrays = set(confirmed(arrays[-1])), rig.play(50, 54)
        assert arrays[-1].segment == 2 and kept <= set(confirmed(arrays[-1]))
        status = rig.status[-1]
        assert status.frames_in == (status.frames_processed + status.frames_dropped + status.frames_rejected
                                    + status.frames_pending)
        assert rig.process.stop() == 0, rig.process.output


def test_poses_from_tf_wrong_clocks_and_late_frames(tmp_path: Path):
    clip = generate(MultiviewConfig("ring", 4, 3, 240, 2))
    cameras = camera_names(clip)
    with graph(73, tmp_path) as g:
        from tf2_msgs.msg import TFMessage

        static = g.publisher(TFMessage, "/tf_static", qos.latched(10))

        def stand(names: list[str], bad: bool = False) -> None:
            """Say where cameras stand; everything again, as a latched topic of depth 1 would have it."""
            message = convert.fill(TFMessage(), transforms_fields([
                (0, WORLD_FRAME, f"{n}_optical", clip.T_world_camera_given[cameras.index(n)]) for n in names]))
            for transform in message.transforms if bad else ():
                transform.transform.rotation.x = float("nan")
            static.publish(message)

        rig = Rig(g, tmp_path, clip, {})
        reports = g.collect(DiagnosticArray, "/diagnostics")
        stand(cameras[:3])
        stand(cameras[3:], bad=True)

        # --- one camera has no usable pose: it takes no part, and diagnostics say so
        arrays = rig.play(0, 12)
        assert set(arrays[-1].cameras_used) == set(cameras[:3]) and len(confirmed(arrays[-1])) == 3
        rows = rig.associations[-1]
        assert {s for name, s in zip(rows.camera_names, rows.status, strict=True) if name == cameras[3]} == {
            FusionAssociations.STATUS_NO_EXTRINSICS}
        g.wait(lambda: cameras[3] in rig.status[-1].message, "a status that names the camera")
        unknown = next(c for c in rig.extrinsics[-1].cameras if c.camera_name == cameras[3])
        assert unknown.status == unknown.STATUS_UNKNOWN and unknown.pose.covariance[0] == -1.0
        stand(cameras[3:])
        ids = set(confirmed(arrays[-1]))
        arrays = rig.play(12, 20)
        assert set(arrays[-1].cameras_used) == set(cameras) and set(confirmed(arrays[-1])) == ids

        counts = reported(g, reports, cameras[3])
        assert int(counts["bodies_no_extrinsics"]) > 10 and counts["bodies_invalid"] == "0"

        # --- numbers that are none are left out and counted; what else the camera sees is used
        arrays = rig.play(20, 24, spoiled=cameras[0])
        assert set(arrays[-1].cameras_used) == set(cameras) and set(confirmed(arrays[-1])) == ids
        assert int(reported(g, reports, cameras[0])["bodies_invalid"]) == 4
        assert f"{cameras[0]}: body left out: a number that is not finite" in rig.status[-1].message

        # --- a camera whose clock is 50 ms ahead: still three people, still every set
        arrays = rig.play(24, 36, offset_ns={cameras[1]: 50_000_000})
        assert set(confirmed(arrays[-1])) == ids and max(len(confirmed(a)) for a in arrays) == 3

        # --- frames that arrive 300 ms late are counted (a node that lags itself may use some); the others go on
        before = int(reported(g, reports, cameras[2])["late"])
        set_parameter(g, "sync.timeout", 0.1)
        arrays = rig.play(36, 48, late={cameras[2]: 0.3})
        assert set(confirmed(arrays[-1])) == ids and len(arrays) >= 11
        used = sum(cameras[2] in a.cameras_used for a in arrays)
        assert int(reported(g, reports, cameras[2])["late"]) - before + used == 12
        # --- with a longer timeout they are used
        set_parameter(g, "sync.timeout", PATIENCE["sync.timeout"])
        arrays = rig.play(48, 60, late={cameras[2]: 0.3})
        assert sum(cameras[2] in a.cameras_used for a in arrays) >= 8 and set(confirmed(arrays[-1])) == ids
        assert rig.process.stop() == 0, rig.process.output


def reported(g: Graph, reports: list[DiagnosticArray], camera: str) -> dict[str, str]:
    """What the next report of the node says of a camera."""
    reports.clear()
    g.wait(lambda: reports, "diagnostics")
    return {v.key: v.value for s in reports[-1].status if s.name == f"human_scene_fusion: Camera {camera}"
            for v in s.values}


def set_parameter(g: Graph, name: str, value: float) -> None:
    from rcl_interfaces.msg import Parameter, ParameterValue
    from rcl_interfaces.srv import SetParameters

    answer = g.call(SetParameters, f"{NODE}/set_parameters", SetParameters.Request(parameters=[
        Parameter(name=name, value=ParameterValue(type=3, double_value=value))]))
    assert answer.results[0].successful, answer.results[0].reason


def test_a_recording_that_is_played_three_times_starts_three_segments(tmp_path: Path):
    """Body messages of four cameras from a real bag_node that loops: every pass has its own people and loses nobody."""
    clip = generate(MultiviewConfig("ring", 4, 3, 90, 2))
    cameras, body = camera_names(clip), tmp_path / "body.npz"
    write_body(body)
    with SceneBagWriter(tmp_path / "bag") as bag:
        for message in clip_messages(clip, body):
            if message.fields["sequence"] % EVERY == 0:
                bag.write(f"/{message.camera}/human_scene/bodies", BODY_ARRAY, message.fields, message.stamp_ns)
    rig_file = tmp_path / "rig.yaml"
    rig_file.write_text(rig_text(WORLD_FRAME, [CameraPlace(n, f"{n}_optical", T)
                                               for n, T in zip(cameras, clip.T_world_camera_given, strict=True)]))
    with graph(76, tmp_path) as g:
        people = g.collect(FusedPersonArray, "/people")
        node = g.start("fusion_node", {"cameras": cameras, "body": str(body), "extrinsics.file": str(rig_file),
                                       **PATIENCE, **{f"{n}.extrinsics_source": "file" for n in cameras}})
        node.wait_output("ready: ")
        g.wait_connected("human_scene_fusion: Sync", "people")
        topics = [f"/{n}/human_scene/bodies" for n in cameras]
        player = g.start("bag_node", {"input": str(tmp_path / "bag"), "topics": topics, "wait_for_topics": topics,
                                      "loop": True})
        g.wait(lambda: people and people[-1].segment >= 3, "the fourth pass")
        assert player.stop() == 0 and node.stop() == 0, player.output + node.output
    ids = []
    for segment in range(3):
        arrays = [a for a in people if a.segment == segment]
        stamps = [stamp_ns_of(a.header.stamp) for a in arrays]
        assert len(arrays) >= 28 and stamps == sorted(stamps)
        found = set(confirmed(arrays[-1]))
        assert len(found) == 3 and all(len(confirmed(a)) == 3 for a in arrays[10:])
        ids.append(found)
    assert not ids[0] & ids[1] and not ids[1] & ids[2], "ids are never used again"


def file_poses(folder: Path, clip: Any, bumped: int = -1) -> dict[str, Any]:
    """Parameters that take all poses from a file; one camera was turned by 4 degrees since it was written."""
    places = []
    for v, (name, T) in enumerate(zip(camera_names(clip), clip.T_world_camera_given, strict=True)):
        turn = make_transform(Rotation.from_rotvec([0.0, 0.07 * (v == bumped), 0.0]).as_matrix(), np.zeros(3))
        places.append(CameraPlace(name, f"{name}_optical", T @ turn))
    (folder / "rig.yaml").write_text(rig_text(WORLD_FRAME, places))
    return {"extrinsics.file": str(folder / "rig.yaml"),
            **{f"{name}.extrinsics_source": "file" for name in camera_names(clip)}}


def test_a_camera_that_was_bumped_is_named_and_the_others_are_not(tmp_path: Path):
    """Five cameras, of which no two face each other: between such two nobody could tell which one it was."""
    clip = generate(MultiviewConfig("ring", 5, 2, 150, 3))
    with graph(77, tmp_path) as g:
        rig = Rig(g, tmp_path, clip, file_poses(tmp_path, clip, bumped=2))
        reports = g.collect(DiagnosticArray, "/diagnostics")
        rig.play(0, 50)
        g.wait(lambda: any(c.drifted for c in rig.extrinsics[-1].cameras), "the drift to be noticed")
        assert [c.drifted for c in rig.extrinsics[-1].cameras] == [False, False, True, False, False]
        assert rig.process.output.count("camera camera_2 does not stand where its pose says (bumped?)") == 1
        assert rig.process.output.count("(bumped?)") == 1, rig.process.output
        levels = {s.name: s.level for m in reports for s in m.status}
        assert levels["human_scene_fusion: Camera camera_2"] == DiagnosticStatus.WARN
        assert levels["human_scene_fusion: Camera camera_0"] == DiagnosticStatus.OK
        assert rig.process.stop() == 0, rig.process.output


def test_thirty_people_go_through_and_a_pose_that_is_none_costs_no_set(tmp_path: Path):
    clip = generate(MultiviewConfig("ring", 4, 30, 45, 3))
    with graph(77, tmp_path) as g:
        rig = Rig(g, tmp_path, clip, {**file_poses(tmp_path, clip), "map.enabled": True})
        arrays = rig.play(0, 15, lost="camera_0")
        assert all("camera_0" in a.cameras_used for a in arrays)
        assert "camera_0: map left out: quaternion" in rig.status[-1].message
        assert len(arrays) == pytest.approx(15, abs=1) and rig.status[-1].frames_rejected == 0
        assert 20 <= len(confirmed(arrays[-1])) <= 40, "they hide one another"
        assert rig.error_m(arrays[-1]) < 0.6
        assert rig.process.stop() == 0, rig.process.output
