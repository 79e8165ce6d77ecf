"""Gathers, frame by frame, what the overview of a run shows; memory does not grow with the number of points."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.evaluation.trajectory import align_trajectory
from human_scene_ros.geometry.transform import apply
from human_scene_ros.scene import SceneEstimate, TrackState
from human_scene_ros.viewer.overview import Image8, Moment, Overview

_MAX_RANGE_M = 10.0
_POINTS_PER_FRAME = 4000
_MAX_POINTS = 400_000


@dataclasses.dataclass
class _Segment:
    """One interval without a reset: poses of different intervals must not be mixed."""

    path: list[NDArray[np.float64]] = dataclasses.field(default_factory=list)
    true_path: list[NDArray[np.float64] | None] = dataclasses.field(default_factory=list)
    trails: dict[int, list[NDArray[np.float64]]] = dataclasses.field(default_factory=dict)
    points: list[NDArray[np.float32]] = dataclasses.field(default_factory=list)
    colors: list[Image8] = dataclasses.field(default_factory=list)
    moment: Moment | None = None
    interest: float = -1.0


class OverviewCollector:
    """Feed it every frame of one run; the longest segment is shown."""

    def __init__(self) -> None:
        self._segments: dict[int, _Segment] = {}

    def add(self, image: Image8, estimate: SceneEstimate,
            true_T_world_camera: NDArray[np.floating] | None = None) -> None:
        """One frame.

        Args:
            image: (H, W, 3) RGB input.
            estimate: What came of it.
            true_T_world_camera: (4, 4) if the recording knows it, in its own world.
        """
        segment = self._segments.setdefault(estimate.segment, _Segment())
        T_world_camera = np.asarray(estimate.T_world_camera, np.float64)
        segment.path.append(T_world_camera)
        segment.true_path.append(None if true_T_world_camera is None else np.asarray(true_T_world_camera, np.float64))
        for body in estimate.bodies:
            if body.track_state in (TrackState.CONFIRMED, TrackState.PREDICTED):
                pelvis = np.asarray(apply(T_world_camera, body.joints_camera[0].astype(np.float64)), np.float64)
                segment.trails.setdefault(body.track_id, []).append(pelvis)
        moment = Moment.from_estimate(image, estimate)
        interest = moment.interest()
        if interest > segment.interest:
            segment.moment, segment.interest = moment, interest
        self._add_points(segment, estimate)

    def overview(self, *, subtitle: str, facts: Mapping[str, str], title: str = "Humans, map and camera",
                 map_world: tuple[NDArray[np.floating], Image8] | None = None) -> Overview | None:
        """What to draw; None if no frame was added.

        Args:
            subtitle: Which weights ran.
            facts: Label -> value.
            title: Large text.
            map_world: (N, 3) points and (N, 3) RGB of the run's own map; None = the points gathered here.
        """
        if not self._segments:
            return None
        segment = max(self._segments.values(), key=lambda s: len(s.path))
        assert segment.moment is not None
        path = np.stack(segment.path)
        if map_world is not None and len(map_world[0]):
            points, colors = map_world
        else:
            points = np.concatenate([np.zeros((0, 3), np.float32), *segment.points])
            colors = np.concatenate([np.zeros((0, 3), np.uint8), *segment.colors])
        # Tracks of a moment are mistakes more often than people.
        lasting = {i: np.stack(t) for i, t in segment.trails.items() if len(t) >= min(8, len(path))}
        return Overview(segment.moment, path, points, colors, lasting, title, subtitle, facts,
                        _true_path(path, segment.true_path))

    def _add_points(self, segment: _Segment, estimate: SceneEstimate) -> None:
        height, width = estimate.confidence.shape
        stride = max(1, int(np.ceil(np.sqrt(height * width / _POINTS_PER_FRAME))))
        points = estimate.points_camera[::stride, ::stride].reshape(-1, 3)
        with np.errstate(invalid="ignore"):
            keep = (np.isfinite(points).all(axis=1) & (points[:, 2] <= _MAX_RANGE_M)
                    & ~estimate.person[::stride, ::stride].reshape(-1))
        segment.points.append(apply(estimate.T_world_camera, points[keep]).astype(np.float32))
        segment.colors.append(estimate.colors[::stride, ::stride].reshape(-1, 3)[keep])
        if sum(len(p) for p in segment.points) > _MAX_POINTS:
            points, colors = np.concatenate(segment.points), np.concatenate(segment.colors)
            _, first = np.unique(np.floor(points / 0.04).astype(np.int64), axis=0, return_index=True)
            if len(first) > _MAX_POINTS // 2:
                first = first[::2]
            segment.points, segment.colors = [points[first]], [colors[first]]


def _true_path(path: NDArray[np.float64], true: list[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    """(T, 3) true positions moved into the estimated world by SE(3) over all frames; None if any is unknown."""
    known = [T for T in true if T is not None]
    if len(known) != len(path) or len(path) < 3:
        return None
    aligned, _ = align_trajectory(np.stack(known), path, "se3")
    return None if aligned is None else aligned[:, :3, 3]
