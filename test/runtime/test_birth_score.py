"""Weak detections continue tracks for a while, but begin none."""

from __future__ import annotations

import numpy as np

from human_scene_ros.body.model import load_body_model
from human_scene_ros.runtime.tracks import Observation, TrackConfig, Tracker, TrackerState
from human_scene_ros.scene import TrackState

FRAME_NS = 100_000_000


def run(config: TrackConfig, scores: list[float]) -> list[list[tuple[int, float, TrackState]]]:
    """(id, score, state) of every track after each frame, when one body at one place has these scores."""
    tracker = Tracker(load_body_model(), config)
    points = np.tile(np.array([0.0, 0.0, 3.0], np.float32), (55, 1))
    state, seen = TrackerState(), []
    for k, score in enumerate(scores):
        observation = Observation(np.tile(np.eye(3, dtype=np.float32), (55, 1, 1)), np.zeros(10, np.float32),
                                  np.zeros(10, np.float32), points, score, np.zeros(2, np.float32))
        tracked, state = tracker.step([observation], np.eye(4), k * FRAME_NS, state)
        seen.append([(t.track.track_id, t.track.score, t.track.state) for t in tracked])
    return seen


def test_a_weak_detection_continues_a_track_but_begins_none():
    seen = run(TrackConfig(birth_score=0.45), [0.25, 0.25, 0.9, 0.25, 0.4])
    assert [[t[:2] for t in frame] for frame in seen] == [[], [], [(0, 0.9)], [(0, 0.25)], [(0, 0.4)]]


def test_a_track_ends_when_its_mean_score_says_furniture():
    # Means: 0.6, 0.4, 0.3; the third is doubted, and its body begins nothing either.
    seen = run(TrackConfig(birth_score=0.35, confirm_hits=1), [0.6, 0.2, 0.2, 0.2, 0.6])
    there, gone = TrackState.CONFIRMED, TrackState.LOST
    assert [[(i, state) for i, _, state in frame] for frame in seen] == [
        [(0, there)], [(0, there)], [(0, gone)], [], [(1, there)]]


def test_one_weak_frame_does_not_end_a_track():
    seen = run(TrackConfig(birth_score=0.35, confirm_hits=1), [0.8, 0.2, 0.7, 0.2, 0.7])
    assert all(frame[0][0] == 0 and frame[0][2] == TrackState.CONFIRMED for frame in seen)
