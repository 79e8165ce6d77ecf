"""`human-scene bench fusion`: walking people, noisy cameras, known truth; accuracy first, then time per frame."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.evaluation import metrics
from human_scene_ros.evaluation.matching import pair_association
from human_scene_ros.evaluation.tracking import TrackingAccumulator
from human_scene_ros.fusion.fusion import Fusion, FusionConfig
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

RECOVERY_M = 0.75
"""A person's fused body is the nearest published one within this distance of the pelvis."""


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
    parser.add_argument("--repeat", type=int, default=1, help="runs of which the fastest median counts (default 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Generate, fuse, score, print."""
    frames = arguments.frames if arguments.frames is not None else (150 if arguments.people > 4 else 300)
    clip = generate(MultiviewConfig(arguments.scenario, arguments.views, arguments.people, frames, arguments.seed))
    scores = run_clip(clip, repeat=arguments.repeat).scores
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
    P, T = clip.truth.shape[:2]
    counts = np.zeros(4)
    tracking = TrackingAccumulator(0.5)
    fused = np.full(clip.truth.shape, np.nan)
    bounds = np.searchsorted(clip.frame, np.arange(T + 1))
    shown = 0
    for k, result in enumerate(results):
        rows = slice(bounds[k], bounds[k + 1])
        counts += pair_association(result.detection_person, clip.person[rows], clip.view[rows]).counts
        people = result.people
        tracking.add(np.arange(P), clip.truth[:, k, 0], people.person_id, people.joints_world[:, 0])
        if not len(people):
            continue
        shown += P > 0
        distance = np.linalg.norm(clip.truth[:, k, None, 0] - people.joints_world[None, :, 0], axis=2)
        nearest = distance.argmin(axis=1)
        found = distance[np.arange(P), nearest] < RECOVERY_M
        fused[found, k] = people.joints_world[nearest[found]]
    mot = tracking.result()
    wa = [_wa(fused[p], clip.truth[p]) for p in range(P)]
    single = _single_view_joints(clip)
    wa_single = [_wa(single[v, p], clip.truth[p]) for v in range(len(single)) for p in range(P)]
    covered = np.isfinite(fused[:, :, 0, 0])
    return {
        "assoc_precision": counts[0] / counts[1] if counts[1] else float("nan"),
        "assoc_recall": counts[0] / counts[2] if counts[2] else float("nan"),
        "idf1": mot.idf1, "mota": mot.mota, "id_switches": mot.switches,
        "wa_mpjpe_single_mm": metrics.nanmean(wa_single), "wa_mpjpe_fused_mm": metrics.nanmean(wa),
        "mpjpe_abs_single_mm": 1e3 * metrics.nanmean(np.linalg.norm(single - clip.truth[None], axis=-1)),
        "mpjpe_abs_fused_mm": 1e3 * metrics.nanmean(np.linalg.norm(fused - clip.truth, axis=-1)),
        "head_mm": 1e3 * metrics.nanmean(np.linalg.norm((fused - clip.truth)[:, :, HEAD], axis=-1)),
        "coverage": float(covered.mean()) if covered.size else float("nan"),
        "frames_with_people": shown,
    }


def _wa(ours: Array, truth: Array) -> float:
    """WA-MPJPE over chunks of 100 of the frames in which there is an estimate."""
    known = np.isfinite(ours).all(axis=(1, 2))
    return metrics.nanmean(metrics.wa_mpjpe_mm(ours[known], truth[known])) if known.sum() >= 2 else float("nan")


def _single_view_joints(clip: MultiviewClip) -> Array:
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
