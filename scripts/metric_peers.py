"""Seconds and values of evo and motmetrics on given inputs, as JSON; `human-scene bench metrics` calls it.

Usage: metric_peers.py INPUTS.npz   (estimate, truth: (N, 4, 4); tracks, people: (T, P, 3))

The package itself never imports them: evo's licence is the GPL, and neither is needed to compute anything.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import time
from typing import Any

import numpy as np


def main(path: str) -> dict[str, Any]:
    """One entry per peer that is installed."""
    arrays = np.load(path)
    found: dict[str, Any] = {}
    for name, measure in (("evo", with_evo), ("motmetrics", with_motmetrics)):
        if importlib.util.find_spec(name) is not None:
            cpu_s, values = measure(arrays)
            found[name] = {"version": importlib.metadata.version(name), "cpu_s": cpu_s, "values": values}
    return found


def with_evo(arrays: Any) -> tuple[float, dict[str, float]]:
    """ATE and RPE after Sim(3)."""
    from evo.core import metrics
    from evo.core.trajectory import PoseTrajectory3D

    stamps = np.arange(len(arrays["truth"])) / 30.0
    truth, estimate = (PoseTrajectory3D(poses_se3=list(arrays[k]), timestamps=stamps) for k in ("truth", "estimate"))
    began = time.process_time()
    estimate.align(truth, correct_scale=True)
    values = {}
    for key, metric in (
            ("ate_m", metrics.APE(metrics.PoseRelation.translation_part)),
            ("rpe_trans_m", metrics.RPE(metrics.PoseRelation.translation_part, 1, metrics.Unit.frames, all_pairs=True)),
            ("rpe_rot_deg", metrics.RPE(metrics.PoseRelation.rotation_angle_deg, 1, metrics.Unit.frames,
                                        all_pairs=True))):
        metric.process_data((truth, estimate))
        values[key] = float(metric.get_statistic(metrics.StatisticsType.rmse))
    return time.process_time() - began, values


def with_motmetrics(arrays: Any) -> tuple[float, dict[str, float]]:
    """IDF1, MOTA and distance MOTP with a gate of half a metre."""
    import motmetrics

    ids = list(range(arrays["people"].shape[1]))
    began = time.process_time()
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for people, tracks in zip(arrays["people"], arrays["tracks"], strict=True):
        distance = np.linalg.norm(people[:, None] - tracks[None], axis=-1)
        accumulator.update(ids, ids, np.where(distance <= 0.5, distance, np.nan))
    summary = motmetrics.metrics.create().compute(accumulator, metrics=["idf1", "mota", "motp"], name="all")
    return time.process_time() - began, {k: float(summary[k].iloc[0]) for k in ("idf1", "mota", "motp")}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
