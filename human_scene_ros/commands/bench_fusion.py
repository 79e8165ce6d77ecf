"""`human-scene bench fusion`: walking people, noisy cameras, known truth; accuracy first, then time per frame."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.commands.fusion_scores import RigScores
from human_scene_ros.fusion.config import FusionConfig
from human_scene_ros.fusion.fusion import Fusion
from human_scene_ros.fusion.kinematics import Skeleton
from human_scene_ros.fusion.rotations import matrices_from_rotvecs
from human_scene_ros.fusion.types import Detections, FusedFrame, View
from human_scene_ros.synthetic.multiview import (
    FPS,
    HEAD,
    IMAGE_SIZE,
    SCENARIOS,
    MultiviewClip,
    MultiviewConfig,
    bones_of,
    generate,
)

Array = NDArray[np.float64]

class BenchSkeleton(Skeleton):
    """The 24-joint skeleton of the benchmark: betas scale groups of bones."""

    def bones(self, betas: NDArray[np.floating]) -> Array:
        """(N, B) -> (N, 24, 3)."""
        return bones_of(betas, self._template)


@dataclasses.dataclass(frozen=True)
class ClipResult:
    """Scores and what they came from.

    Args:
        scores: JSON names to numbers.
        frames: Result of every step.
    """

    scores: dict[str, Any]
    frames: list[FusedFrame]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("--scenario", choices=SCENARIOS, default="ring")
    parser.add_argument("--views", type=int, default=4, help="cameras (default 4; 'opposed' has two)")
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--frames", type=int, default=None, help="default 300, or 150 with more than 4 people")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--association", choices=("mahalanobis", "rays", "paper"), default="mahalanobis",
                        help="who is who by rays and depths, rays alone, or joint distances (default mahalanobis)")
    parser.add_argument("--repeat", type=int, default=1, help="runs of which the fastest median counts (default 1)")
    parser.add_argument("--ros", action="store_true", help="through a real fusion_node and its topics")
    parser.add_argument("--rate", type=float, default=1.0, help="with --ros: how many times as fast as recorded the "
                                                                   "cameras send (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Generate, fuse, score, print."""
    frames = arguments.frames if arguments.frames is not None else (150 if arguments.people > 4 else 300)
    clip = generate(MultiviewConfig(arguments.scenario, arguments.views, arguments.people, frames, arguments.seed))
    if arguments.ros:
        from human_scene_ros.commands.bench_fusion_ros import run_clip_over_ros

        scores = run_clip_over_ros(clip, arguments.rate, arguments.association)
    else:
        scores = run_clip(clip, FusionConfig(association=arguments.association), arguments.repeat).scores
    scores = {"scenario": arguments.scenario, "views": len(clip.T_world_camera_true), "people": arguments.people,
              "seed": arguments.seed} | scores
    if arguments.json:
        print(json.dumps({k: None if isinstance(v, float) and np.isnan(v) else v for k, v in scores.items()}))
    else:
        for key, value in scores.items():
            print(f"{key:<24} {value:.4g}" if isinstance(value, float) else f"{key:<24} {value}")
    return 0


def fusion_for(clip: MultiviewClip, config: FusionConfig | None = None) -> Fusion:
    """A fresh fusion that knows the clip's cameras as the system is told them."""
    views = [View(f"camera_{v}", T, float(clip.K[0, 0]), IMAGE_SIZE, (float(clip.K[0, 2]), float(clip.K[1, 2])))
             for v, T in enumerate(clip.T_world_camera_given)]
    return Fusion(BenchSkeleton(clip.parents, clip.bones), views, config)


def detections_of(clip: MultiviewClip) -> Detections:
    """All rows of the clip."""
    return Detections(clip.view.astype(np.int64), clip.stamp_s, clip.head_camera, clip.pose, clip.betas, clip.score,
                      clip.token)


def run_clip(clip: MultiviewClip, config: FusionConfig | None = None, repeat: int = 1) -> ClipResult:
    """Feed the clip frame by frame and score the result.

    Args:
        clip: Detections and truth.
        config: Of the fusion.
        repeat: Runs; accuracy comes from the first, the time per frame from the fastest.
    """
    everything = detections_of(clip)
    T = clip.truth.shape[1] if len(clip.truth) else (int(clip.frame.max()) + 1 if len(clip.frame) else 0)
    bounds = np.searchsorted(clip.frame, np.arange(T + 1))
    parts = [everything.take(np.arange(a, b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    results: list[FusedFrame] = []
    cpu, best = float("inf"), float("inf")
    stages = dict.fromkeys(("tracker", "association", "fusion"), float("nan"))
    for k in range(max(repeat, 1)):
        fusion = fusion_for(clip, config)
        durations, cpu_durations, current = [], [], []
        for frame, part in enumerate(parts):
            started, cpu_started = time.perf_counter(), time.thread_time()
            current.append(fusion.step(frame / FPS, part))
            cpu_durations.append(1e3 * (time.thread_time() - cpu_started))
            durations.append(1e3 * (time.perf_counter() - started))
        if k == 0:
            results = current
        cpu = min(cpu, float(np.median(cpu_durations))) if cpu_durations else cpu
        if durations and float(np.median(durations)) < best:
            best = float(np.median(durations))
            stages = {name: float(np.median([r.stage_ms[name] for r in current])) for name in stages}
    return ClipResult(score(clip, results) | {
        "ms_per_frame_p50": best, "ms_per_frame_cpu_p50": cpu,
        **{f"ms_{name}_p50": ms for name, ms in stages.items()}, "frames": T}, results)


def score(clip: MultiviewClip, results: list[FusedFrame]) -> dict[str, Any]:
    """Accuracy of the steps' results against the truth of the clip."""
    scores = RigScores(clip.truth)
    bounds = np.searchsorted(clip.frame, np.arange(clip.truth.shape[1] + 1))
    for k, result in enumerate(results):
        rows = slice(bounds[k], bounds[k + 1])
        scores.add_associations(result.detection_person, clip.person[rows], clip.view[rows])
        scores.add_people(k, result.people.person_id, result.people.joints_world)
    return scores.result(single_view_joints(clip), HEAD)


def single_view_joints(clip: MultiviewClip) -> Array:
    """(V, P, T, 24, 3) what each view alone says, in the world of the given extrinsics; NaN where unseen."""
    skeleton = BenchSkeleton(clip.parents, clip.bones)
    rows = np.flatnonzero(clip.person >= 0)
    R = matrices_from_rotvecs(clip.pose[rows])
    local = skeleton.positions(R, skeleton.bones(clip.betas[rows]))
    local = local - local[:, HEAD, None] + clip.head_camera[rows, None]
    T_world_camera = clip.T_world_camera_given[clip.view[rows]]
    world = local @ T_world_camera[:, :3, :3].transpose(0, 2, 1) + T_world_camera[:, None, :3, 3]
    out = np.full((len(clip.T_world_camera_given), *clip.truth.shape), np.nan)
    out[clip.view[rows], clip.person[rows], clip.frame[rows]] = world
    return out
