"""The synthetic test set: fixed, complete or absent, evaluable with one camera and with several."""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np
import pytest

from human_scene_ros.commands import synthesize, synthesize_suite
from human_scene_ros.errors import ConfigError
from human_scene_ros.sources.bag_reader import BagReader
from human_scene_ros.sources.reader import open_source
from human_scene_ros.synthetic import testset
from human_scene_ros.synthetic.testset import TEST_SET, SuiteSequence
from human_scene_ros.synthetic.world import SyntheticWorld


def asked(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    synthesize.add_arguments(parser)
    return parser.parse_args([str(w) for w in words])


def tiny(name: str, seed: int, cameras: int = 1) -> SuiteSequence:
    config = dataclasses.replace(TEST_SET["indoor"][0].config, width=48, height=36, num_frames=3, min_people=2,
                                 renderer="numpy", smooth=False, effects=0.0)
    return SuiteSequence(name, seed, config, cameras)


@pytest.fixture
def small_set(monkeypatch):
    small = {"one": (tiny("one_0", 5),), "rig": (tiny("rig_0", 6, 2),)}
    monkeypatch.setattr(testset, "TEST_SET", small)
    return small


def test_the_test_set_is_what_its_names_say():
    assert list(TEST_SET) == ["indoor", "outdoor", "crowd", "multicamera", "long"]
    sequences = [s for suite in TEST_SET.values() for s in suite]
    assert len({s.name for s in sequences}) == len({s.seed for s in sequences}) == len(sequences)
    assert min(s.seed for s in sequences) > 900_000  # training draws smaller ones
    (long,), (rig,) = TEST_SET["long"], TEST_SET["multicamera"]
    assert long.config.num_frames == 3000 and rig.cameras == 4
    small = {"width": 48, "height": 36, "num_frames": 2}
    for suite, place, people in (("crowd", "hall", 5), ("outdoor", "outdoor", 1), ("indoor", "room", 1)):
        sequence = TEST_SET[suite][0]
        world = SyntheticWorld(sequence.seed, dataclasses.replace(sequence.config, **small))
        assert world.place.kind == place and len(world.frame(0).people) >= people


def test_recordings_are_written_once_and_again_when_they_would_differ(tmp_path, small_set, monkeypatch):
    monkeypatch.setattr(synthesize_suite, "code_sha256", lambda layers: "this code")  # somebody may be editing
    report = synthesize_suite.write_suites(asked(tmp_path, "--suite", "all", "--renderer", "numpy", "--json"))
    assert (report["recordings"], report["written"], report["frames"]) == (2, 2, 9)
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["one_0"]
    again = synthesize_suite.write_suites(asked(tmp_path, "--suite", "all", "--renderer", "numpy", "--json"))
    assert again["written"] == 0
    monkeypatch.setattr(testset, "TEST_SET", {**small_set, "one": (tiny("one_0", 7),)})
    changed = synthesize_suite.write_suites(asked(tmp_path, "--suite", "one", "--renderer", "numpy", "--json"))
    assert changed["written"] == 1
    monkeypatch.setattr(synthesize_suite, "code_sha256", lambda layers: "other code")
    changed = synthesize_suite.write_suites(asked(tmp_path, "--suite", "one", "--renderer", "numpy", "--json"))
    assert changed["written"] == 1


def test_truth_of_every_camera_is_read_back(tmp_path, small_set):
    synthesize_suite.write_suites(asked(tmp_path, "--suite", "all", "--renderer", "numpy", "--json"))
    with BagReader(tmp_path / "rig" / "rig_0") as bag:
        assert {"/gt/camera_0/bodies", "/gt/camera_1/bodies", "/gt/people", "/tf_static"} <= set(bag.topics)
    seen = []
    for camera in (0, 1):
        with open_source(tmp_path / "rig" / "rig_0", f"/camera_{camera}/image") as source:
            truths = [source.truth_at(frame.stamp_ns) for frame in source]
        assert len(truths) == 3 and all(t is not None and t.depth_m is not None for t in truths)
        seen.append(truths[1])
    first, second = ({p.person_id: p.joints_camera.astype(np.float64) @ t.T_world_camera[:3, :3].T
                      + t.T_world_camera[:3, 3] for p in t.people} for t in seen)
    assert not np.allclose(seen[0].T_world_camera, seen[1].T_world_camera)
    for person in first.keys() & second.keys():  # the same people in the same world
        np.testing.assert_allclose(first[person], second[person], atol=2e-3)


def test_an_unknown_suite_names_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match="--suite mars: expected one of indoor, outdoor, crowd, multicamera, "):
        synthesize_suite.write_suites(asked(tmp_path, "--suite", "mars"))
