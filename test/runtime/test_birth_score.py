"""Weak detections continue tracks but begin none."""

from __future__ import annotations

import dataclasses

import numpy as np

from human_scene_ros.body.model import load_body_model
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.runtime.tracks import Observation, TrackConfig, Tracker, TrackerState

FRAME_NS = 100_000_000


def test_a_weak_detection_continues_a_track_but_begins_none():
    body = load_body_model()
    tracker = Tracker(body, TrackConfig(birth_score=0.45))
    points = np.tile(np.array([0.0, 0.0, 3.0], np.float32), (55, 1))
    strong = Observation(BodyParameters(transl=points[0]), points, 0.6, np.zeros(2, np.float32), None)
    weak = dataclasses.replace(strong, score=0.25)
    state, seen = TrackerState(), []
    for k, observation in enumerate([weak, weak, strong, weak, weak]):
        tracked, state = tracker.step([observation], np.eye(4), k * FRAME_NS, state)
        seen.append([(t.track.track_id, t.track.score) for t in tracked])
    assert seen == [[], [], [(0, 0.6)], [(0, 0.25)], [(0, 0.25)]]
