"""From body messages to fused people, without processes: truth, crowds, nobody, lives, bad bodies, hands."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from human_scene_ros.body.skeleton import HEAD
from human_scene_ros.commands.fusion_clip import camera_names, clip_messages, write_body
from human_scene_ros.fusion.types import DetectionStatus
from human_scene_ros.nodes.fusion_config import config_for
from human_scene_ros.nodes.fusion_people import FusionPeople
from human_scene_ros.nodes.parameters import config_from_flat
from human_scene_ros.scene import TrackState
from human_scene_ros.sources import fusion_fields, message_fields
from human_scene_ros.synthetic.multiview import MultiviewConfig, generate


def thing(value: Any) -> Any:
    """Nested dicts as objects with attributes, as messages are."""
    if isinstance(value, dict):
        return SimpleNamespace(**{k: thing(v) for k, v in value.items()})
    return [thing(v) for v in value] if isinstance(value, list) else value


class Player:
    """Feeds a clip into `FusionPeople` set by set."""

    def __init__(self, folder: Path, people: int, frames: int, **parameters: Any) -> None:
        self.clip = generate(MultiviewConfig("ring", 4, people, frames, 5))
        body = folder / "body.npz"
        write_body(body)
        self.cameras = camera_names(self.clip)
        config = config_from_flat(config_for(self.cameras), {"cameras": self.cameras, "body": str(body), **parameters})
        self.fusion = FusionPeople(config)
        self.poses = dict(zip(self.cameras, self.clip.T_world_camera_given, strict=True))
        self.sets: dict[int, dict[str, Any]] = {}
        for message in clip_messages(self.clip, body):
            self.sets.setdefault(message.fields["sequence"], {})[message.camera] = message

    def step(self, k: int, change: Any = lambda message: message, cameras: Any = None) -> Any:
        """Set k; `change` alters the messages, `cameras` says which take part."""
        frames = {}
        for name, message in self.sets[k].items():
            if cameras is None or name in cameras:
                frames[name] = (message.stamp_ns, self.fusion.read(change(thing(message.fields))))
        stamp = int(np.median([m.stamp_ns for m in self.sets[k].values()]))
        return self.fusion.step(stamp, frames, {name: self.poses[name] for name in frames})


def without_bodies(message: Any) -> Any:
    message.bodies = []
    return message


def test_fused_bodies_are_where_people_are_and_their_messages_say_so(tmp_path: Path):
    player = Player(tmp_path, 3, 40)
    fused = [player.step(k) for k in range(40)][-1]
    assert len(fused.people) == 3
    truth = player.clip.truth[:, 39, :22]
    for person in fused.people:
        distance = np.linalg.norm(truth - person.body.joints_camera[:22], axis=2).mean(axis=1)
        assert distance.min() < 0.15
        fields = fusion_fields.fused_person_fields(person, player.fusion.description)
        assert fields["person_id"] == fields["body"]["track_id"] == f"p{person.body.track_id:04d}"
        np.testing.assert_allclose(fields["body"]["joints"].reshape(-1, 3)[:22], person.body.joints_camera[:22])
        covariance = fields["body"]["pelvis"]["covariance"].reshape(6, 6)
        np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
        assert (np.linalg.eigvalsh(covariance) > 0.0).all() and fields["num_views"] == len(person.views) >= 2
        assert 0.5 < person.association_confidence <= 1.0 and 0.0 <= person.reprojection_px < 20.0


def test_the_published_pose_gives_the_published_joints(tmp_path: Path):
    """A consumer with the body model must arrive at the same place."""
    from human_scene_ros.body.model import joints

    player = Player(tmp_path, 1, 12)
    person = [player.step(k) for k in range(12)][-1].people[0]
    again = joints(player.fusion.model, person.body.parameters)
    np.testing.assert_allclose(again[:22], person.body.joints_camera[:22], atol=1e-5)
    assert np.isfinite(again[HEAD]).all()


def test_nobody_and_a_crowd(tmp_path: Path):
    player = Player(tmp_path, 0, 5)
    assert [player.step(k).people for k in range(5)] == [()] * 5
    crowd = Player(tmp_path, 30, 12)
    fused = [crowd.step(k) for k in range(12)][-1]
    assert 15 <= len(fused.people) <= 45, "30 people in one room hide one another"
    assert len({p.body.track_id for p in fused.people}) == len(fused.people)


def test_people_coast_and_end_once(tmp_path: Path):
    player = Player(tmp_path, 2, 60, **{"person.coast": 0.2, "person.timeout": 1.0})
    for k in range(20):
        player.step(k)
    states: dict[int, list[TrackState]] = {}
    for k in range(20, 60):
        for person in player.step(k, without_bodies).people:
            states.setdefault(person.body.track_id, []).append(person.body.track_state)
            assert not person.views and person.last_seen_s > 0.0
    assert len(states) == 2
    for found in states.values():
        assert found[-1] is TrackState.LOST and found.count(TrackState.LOST) == 1
        assert 4 <= found.count(TrackState.PREDICTED) <= 7 and len(found) == found.count(TrackState.PREDICTED) + 1


def test_who_is_doubted_but_seen_is_neither_predicted_nor_lost(tmp_path: Path):
    """For twice the timeout one camera alone sees a person whom three others should see, then all do again."""
    player = Player(tmp_path, 1, 160, **{"person.timeout": 1.0})

    def only_first(message: Any) -> Any:
        return message if message.camera_name == player.cameras[0] else without_bodies(message)

    states: list[list[TrackState]] = []
    for k in range(160):
        fused = player.step(k, only_first if 40 <= k < 110 else lambda message: message)
        assert {p.body.track_id for p in fused.people} <= {0}
        states.append([p.body.track_state for p in fused.people])
        if 0 in fused.frame.detection_person:
            assert TrackState.PREDICTED not in states[-1], "a camera sees the person"
    assert sum(not found for found in states[40:110]) > 60, "one against three is not believed"
    assert states[39] == states[115] == [TrackState.CONFIRMED]
    assert not any(TrackState.LOST in found for found in states), "the id lives"


def test_two_who_become_one_end_the_younger_id_at_once(tmp_path: Path):
    """Two cameras stand 1.5 m beside their poses and are moved there in 2.7 s: one person is two at first."""
    player = Player(tmp_path, 1, 100)
    true, states = dict(player.poses), {0: [], 1: []}
    merged = []
    for k in range(100):
        shift = np.eye(4)
        shift[0, 3] = 1.5 * max(0.0, 1.0 - k / 80)
        player.poses.update({name: shift @ true[name] for name in player.cameras[2:]})
        fused = player.step(k)
        merged += fused.merged
        for number, found in states.items():
            found += [p.body.track_state for p in fused.people if p.body.track_id == number]
    assert merged == [(0, 1)]
    assert states[1].count(TrackState.CONFIRMED) > 60 and states[1][-1] is TrackState.LOST
    assert states[1].count(TrackState.LOST) == 1 and TrackState.LOST not in states[0]
    assert states[0][-20:] == [TrackState.CONFIRMED] * 20


def test_min_views_hides_whom_only_one_camera_has_seen(tmp_path: Path):
    lenient, strict = Player(tmp_path, 2, 20), Player(tmp_path, 2, 20, **{"person.min_views": 2})
    shown = [[p.step(k, cameras=p.cameras[:1]) for k in range(20)][-1].people for p in (lenient, strict)]
    assert len(shown[0]) == 2 and not shown[1]
    both = Player(tmp_path, 2, 30, **{"person.min_views": 2})
    assert len([both.step(k) for k in range(15)][-1].people) == 2
    assert len([both.step(k, cameras=both.cameras[:1]) for k in range(15, 30)][-1].people) == 2, "seen by two before"


def test_bad_bodies_are_left_out_and_others_are_not(tmp_path: Path):
    player = Player(tmp_path, 2, 15)

    def spoil(message: Any) -> Any:
        if message.camera_name == player.cameras[0]:
            for body in message.bodies:
                body.joints = np.full_like(body.joints, np.nan)
        if message.camera_name == player.cameras[1]:
            for body in message.bodies:
                body.body_pose = body.body_pose[:5]
        return message

    fused = [player.step(k, spoil) for k in range(15)][-1]
    status = dict(zip(fused.cameras, fused.frame.detection_status, strict=True))
    assert status[player.cameras[0]] == DetectionStatus.INVALID and player.cameras[1] not in status
    assert len(fused.people) == 2 and all(v.camera_name in player.cameras[2:] for p in fused.people for v in p.views)
    read = player.fusion.read(spoil(thing(player.sets[0][player.cameras[1]].fields)))
    assert len(read.malformed) == len(player.sets[0][player.cameras[1]].fields["bodies"])


def test_hands_come_from_the_best_view_that_has_them(tmp_path: Path):
    player = Player(tmp_path, 1, 15)
    hand = np.linspace(0.1, 0.5, 45).astype(np.float32)

    def give_hands(message: Any) -> Any:
        for body in message.bodies:
            if message.camera_name == player.cameras[2]:
                body.valid_parts |= message_fields.VALID_LEFT_HAND
                body.left_hand_pose = hand
        return message

    person = [player.step(k, give_hands) for k in range(15)][-1].people[0]
    seen = player.cameras[2] in [v.camera_name for v in person.views]
    np.testing.assert_allclose(person.body.parameters.left_hand_pose, hand if seen else 0.0)
    assert seen
    hand = np.full(45, np.nan, np.float32)
    person = player.step(14, give_hands).people[0]
    assert not person.body.parameters.left_hand_pose.any(), "hands that are no numbers are not estimated"


def test_bodies_of_another_model_keep_their_place(tmp_path: Path):
    player = Player(tmp_path, 1, 3)

    def rename(message: Any) -> Any:
        for body in message.bodies:
            body.body_model = "smplx"
        return message

    message = rename(thing(player.sets[0][player.cameras[0]].fields))
    assert "['smplx']" in player.fusion.foreign(message) and "set the parameter body" in player.fusion.foreign(message)
    assert not player.fusion.read(message).betas.any()
    assert player.fusion.foreign(thing(player.sets[1][player.cameras[0]].fields)) == ""


def test_merging_needs_two_known_people(tmp_path: Path):
    player = Player(tmp_path, 2, 15)
    fused = [player.step(k) for k in range(14)][-1]
    keep, drop = (fusion_fields.person_id_text("p", p.body.track_id) for p in fused.people)
    assert not player.fusion.merge(keep, "p0999") and not player.fusion.merge(keep, keep)
    assert not player.fusion.merge(keep, drop.replace("p000", "p")), "ids are what messages say"
    assert player.fusion.merge(keep, drop)
    after = player.step(14)
    states = {fusion_fields.person_id_text("p", p.body.track_id): p.body.track_state for p in after.people}
    assert states[keep] is TrackState.CONFIRMED and states[drop] is TrackState.LOST and len(after.merged) == 1


def test_a_rig_file_says_what_is_wrong_with_it(tmp_path: Path):
    from human_scene_ros.errors import ConfigError
    from human_scene_ros.sources.rig_file import read_rig, rig_text, urdf_text

    path = tmp_path / "rig.yaml"
    roll, pitch, yaw = 0.3, -0.4, 2.0
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    T = np.eye(4)
    T[:3, :3] = about_z @ about_y @ about_x  # as URDF has it
    T[:3, 3] = 1.0, 2.0, 3.0
    place = fusion_fields.CameraPlace("front", "front_optical", T)
    path.write_text(rig_text("map", [place, fusion_fields.CameraPlace("left", "", None)]))
    (name, back), = read_rig(path).items()
    assert (name, back.frame, back.source) == ("front", "front_optical", fusion_fields.SOURCE_FILE)
    np.testing.assert_allclose(back.T_world_camera, T, atol=1e-6)
    joint = ElementTree.fromstring(urdf_text("map", [place]))
    assert (joint.find("parent").get("link"), joint.find("child").get("link")) == ("map", "front_optical")
    np.testing.assert_allclose(np.array(joint.find("origin").get("xyz").split(), float), T[:3, 3])
    np.testing.assert_allclose(np.array(joint.find("origin").get("rpy").split(), float), (roll, pitch, yaw), atol=1e-6)
    for text, complaint in (
            ("[1, 2]", "expected the keys world_frame and cameras"),
            ("cameras: {front: {position: [1, 2, .nan], orientation: [0, 0, 0, 1]}}", "expected 3 finite numbers"),
            ("cameras: {front: {position: [1, 2, 3], orientation: [0, 0, 0, 0]}}", "no unit quaternion"),
            ("cameras: {front: {position: [1, 2, 3], rotation: [0, 0, 0, 1]}}", "camera 'front' holds")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=complaint):
            read_rig(path)


def test_the_number_of_a_person_is_read_back_from_the_id():
    assert [fusion_fields.person_number(fusion_fields.person_id_text("p", n)) for n in (0, 7, 12345)] == [0, 7, 12345]
    assert fusion_fields.person_number("") == -1
