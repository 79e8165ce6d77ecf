"""Golden vectors of the metrics: one check per file of the fixture folder, used by `human-scene check DIR`.

A check recomputes every array of its file from the inputs stored beside it. It accepts any number of cases,
sizes and seeds; only the names of the arrays are fixed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.evaluation import matching, metrics
from human_scene_ros.evaluation.alignment import umeyama
from human_scene_ros.evaluation.depth import depth_errors
from human_scene_ros.evaluation.tracking import TrackingAccumulator
from human_scene_ros.evaluation.trajectory import trajectory_errors
from human_scene_ros.geometry.transform import make_transform, matrix_from_quat_wxyz

Arrays = Mapping[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One array of a golden file against ours.

    Args:
        name: File stem and array, "world_metrics/c0_wa_mpjpe_mm".
        error: Relative RMS of the difference; infinity where shapes or places of NaN differ.
        limit: Largest error that passes.
    """

    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """True if the error is within the limit."""
        return bool(self.error <= self.limit)


def relative_rms(ours: Any, expected: Any, floor: float = 0.0) -> float:
    """RMS of the difference over RMS of `expected` (at least `floor`); infinity where shape or NaN pattern differ."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    if ours.shape != expected.shape or not np.array_equal(np.isnan(ours), np.isnan(expected)):
        return float("inf")
    known = ~np.isnan(expected)
    if not known.any():
        return 0.0
    difference = float(np.sqrt(np.mean((ours[known] - expected[known]) ** 2)))
    scale = max(float(np.sqrt(np.mean(expected[known] ** 2))), floor)
    if scale == 0.0:
        return 0.0 if difference == 0.0 else float("inf")
    return difference / scale


def check_file(path: Path,
               checks: Mapping[str, Callable[[Arrays], Iterator[Comparison]]] | None = None) -> list[Comparison]:
    """Compare one `.npz`; an empty list means that this file is about something else.

    Args:
        path: The file.
        checks: Name of a file -> what compares it; None = those of the metrics.
    """
    check = (CHECKS if checks is None else checks).get(path.stem)
    if check is None:
        return []
    with np.load(path, allow_pickle=False) as arrays:
        return [dataclasses.replace(c, name=f"{path.stem}/{c.name}") for c in check(arrays)]


def case_prefixes(arrays: Arrays, letters: str) -> list[str]:
    """Prefixes "c0_", "c1_", ... of the keys of numbered cases, for `letters` = "c".

    Raises:
        ValueError: A number is left out, so that the cases behind it would not be compared.
    """
    numbers = {int(found[1]) for key in arrays if (found := re.match(rf"{letters}(\d+)_", key))}
    if numbers != set(range(len(numbers))):
        raise ValueError(f"cases {letters}{sorted(numbers)}: expected 0 to {len(numbers) - 1} without a gap")
    return [f"{letters}{i}_" for i in range(len(numbers))]


def named_cases(arrays: Arrays, names: str = "names", letters: str = "c") -> list[tuple[str, str]]:
    """Prefix of the keys and name of every case.

    Raises:
        KeyError: There is no array of names.
        ValueError: It does not name each case once.
    """
    prefixes, given = case_prefixes(arrays, letters), [str(name) for name in arrays[names]]
    if len(prefixes) != len(given):
        raise ValueError(f"{names} has {len(given)} entries for {len(prefixes)} cases {letters}0_*, {letters}1_*, ...")
    return list(zip(prefixes, given, strict=True))


def _align_umeyama(arrays: Arrays) -> Iterator[Comparison]:
    for case, name in named_cases(arrays):
        limit = 1e-6 if "tiny" in name or "large_offset" in name else 1e-9
        src, dst = arrays[case + "src"], arrays[case + "dst"]
        weights = arrays.get(case + "w")
        for kind in ("sim3", "se3"):
            key = f"{case}{kind}_"
            fit = umeyama(src, dst, with_scale=kind == "sim3", weights=weights)
            degenerate = bool(arrays[key + "degenerate"])
            yield Comparison(key + "degenerate", 0.0 if bool(fit.degenerate) == degenerate else float("inf"), 0.0)
            if degenerate or bool(fit.degenerate):
                continue
            yield Comparison(key + "R", relative_rms(fit.R, arrays[key + "R"]), limit)
            size = float(np.abs(dst).max())
            yield Comparison(key + "t", relative_rms(fit.t, arrays[key + "t"], floor=size), limit)
            yield Comparison(key + "s", relative_rms(fit.s, arrays[key + "s"]), limit)
            rmse = np.sqrt(np.mean(np.sum((fit.apply(src) - dst) ** 2, axis=-1)))
            yield Comparison(key + "rmse", relative_rms(rmse, arrays[key + "rmse"], floor=size * 1e-3), limit)


def _world_metrics(arrays: Arrays) -> Iterator[Comparison]:
    feet = [7, 10, 8, 11]
    for case, _ in named_cases(arrays):
        pred, gt = arrays[case + "pred"].astype(np.float64), arrays[case + "gt"].astype(np.float64)
        ours = {
            "w_mpjpe_mm": metrics.w_mpjpe_mm(pred, gt), "wa_mpjpe_mm": metrics.wa_mpjpe_mm(pred, gt),
            # The reference has no rule for people who stand still.
            "rte_pct": metrics.rte_percent(pred[:, 0], gt[:, 0], min_path_m=0.0),
            "rte_scaled_pct": metrics.rte_percent(pred[:, 0], gt[:, 0], with_scale=True, min_path_m=0.0),
            "jitter": metrics.jitter_10m_s3(pred),
            "foot_sliding_mm": metrics.foot_sliding_mm(pred[:, feet], gt[:, feet]),
        }
        means = [metrics.nanmean(values) for values in ours.values()]
        ours["accel_err_m_s2"] = metrics.accel_error_m_s2(pred, gt)
        ours["accel_err_masked_m_s2"] = metrics.accel_error_m_s2(pred, gt, arrays[case + "vis"])
        for key, values in ours.items():
            yield Comparison(case + key, relative_rms(values, arrays[case + key]), 1e-6)
        yield Comparison(case + "means", relative_rms(means, arrays[case + "means"]), 1e-6)


def _local_metrics(arrays: Arrays) -> Iterator[Comparison]:
    for case, name in named_cases(arrays):
        pj, gj, pv, gv = (arrays[case + k].astype(np.float64) for k in ("pred_j", "gt_j", "pred_v", "gt_v"))
        hips = arrays[case + "pelvis_idx"].tolist()
        ours = {
            "me_mpjpe": 1e3 * metrics.mean_distance(pj, gj), "me_pve": 1e3 * metrics.mean_distance(pv, gv),
            "ca_mpjpe": metrics.mpjpe_mm(pj, gj, hips), "ca_pve": metrics.pve_mm(pv, gv, pj, gj, hips),
            "pa_mpjpe": metrics.pa_mpjpe_mm(pj, gj), "pa_pve": metrics.pa_mpjpe_mm(pv, gv),
            "rt_error": metrics.root_error_mm(pj, gj, hips), "emdb_mpjpe": metrics.mpjpe_mm(pj, gj, hips),
            "emdb_mpjpe_pa": metrics.pa_mpjpe_mm(pj, gj), "emdb_mve": metrics.pve_mm(pv, gv, pj, gj, hips),
            "emdb_mve_pa_joint_fit": metrics.pa_mve_j_mm(pv, gv, pj, gj),
        }
        for key, values in ours.items():
            if case + key not in arrays:
                continue
            # Errors of exactly 0 leave rounding only: 1e-9 mm.
            floor = 1e-3 if name == "perfect" else 0.0
            yield Comparison(case + key, relative_rms(values, arrays[case + key], floor), 1e-6)
    if "emdb_jitter_pred" in arrays:
        jitter = [value for key in ("emdb_jitter_pred", "emdb_jitter_gt")
                  for value in metrics.emdb_jitter_10m_s3(arrays[key])]
        key = "emdb_jitter_mean_std_pred_mean_std_gt"
        yield Comparison(key, relative_rms(jitter, arrays[key]), 1e-6)
    if "mpjae_pred9" in arrays:
        angles = metrics.mpjae_deg(arrays["mpjae_pred9"], arrays["mpjae_gt24"])
        yield Comparison("mpjae_all_deg", relative_rms(angles, arrays["mpjae_all_deg"]), 1e-6)
        yield Comparison("mpjae_mean_deg", relative_rms(angles.mean(), arrays["mpjae_mean_deg"]), 1e-6)


def _traj_ate_rpe(arrays: Arrays) -> Iterator[Comparison]:
    for case, _ in named_cases(arrays):
        poses = [np.stack([make_transform(matrix_from_quat_wxyz(q), x) for x, q in zip(
            arrays[f"{case}{who}_xyz"], arrays[f"{case}{who}_qwxyz"], strict=True)]) for who in ("est", "gt")]
        for kind in ("sim3", "se3", "scale_only", "none"):
            for delta in (1, 10):
                errors = trajectory_errors(*poses, kind=kind, delta=delta, use_orientations=False)
                if f"{case}error_{kind}" in arrays:
                    if delta > 1:
                        continue
                    ok = errors.alignment == "degenerate"
                    yield Comparison(f"{case}error_{kind}", 0.0 if ok else float("inf"), 0.0)
                    continue
                ate = [(f"ate_rmse_{kind}", errors.ate_rmse_m)] if delta == 1 else []
                for key, value in (*ate, (f"rpe_t_rmse_{kind}_d{delta}", errors.rpe_trans_rmse_m),
                                   (f"rpe_r_deg_rmse_{kind}_d{delta}", errors.rpe_rot_rmse_deg)):
                    if case + key in arrays:
                        yield Comparison(case + key, relative_rms(value, arrays[case + key]), 1e-6)


def _depth(arrays: Arrays) -> Iterator[Comparison]:
    for case, _ in named_cases(arrays):
        for kind in ("median", "scale", "scale_shift_lstsq", "scale_shift_lad2", "metric"):
            for suffix, clip in (("", None), ("_clip70", 70.0)):
                key = case + kind + suffix
                if key not in arrays:
                    continue
                errors = depth_errors(arrays[case + "pred"], arrays[case + "gt"], alignment=kind,  # type: ignore[arg-type]
                                      clip_max_m=clip)
                ours = dataclasses.astuple(errors)[:8]
                # Eight numbers of different units: the worst of their relative errors.
                worst = max(relative_rms(a, b) for a, b in zip(ours, arrays[key], strict=True))
                yield Comparison(key, worst, 1e-3 if kind == "scale_shift_lad2" else 2e-5)


def _detection_tracking(arrays: Arrays) -> Iterator[Comparison]:
    """2-D matching, MOT scores, pair association, PCK, PCDR."""
    for case in case_prefixes(arrays, "m"):
        found = matching.match_keypoints(arrays[case + "pred_2d"], arrays[case + "gt_2d"])
        same = (set(found.pairs) == {tuple(row) for row in arrays[case + "match"].tolist()}
                and sorted(found.misses) == sorted(arrays[case + "miss"].tolist())
                and sorted(found.false_positives) == sorted(arrays[case + "fp"].tolist()))
        yield Comparison(case + "match", 0.0 if same else float("inf"), 0.0)
        scores = matching.precision_recall_f1(len(found.pairs), len(found.false_positives), len(found.misses))
        # The reference divides by nothing to 0 and rounds the fractions to two decimals.
        rounded = [0.0 if np.isnan(score) else 100.0 * round(score, 2) for score in scores]
        yield Comparison(case + "prf1_pct", relative_rms(rounded, arrays[case + "prf1_pct"], floor=1e-9), 1e-6)
    for case in case_prefixes(arrays, "t"):
        gt, rows = arrays[case + "gt"], arrays[case + "hyp_frame_id_xyz"]
        accumulator = TrackingAccumulator(float(arrays[case + "gate_m"]))
        for frame, truth in enumerate(gt):
            known = np.flatnonzero(np.isfinite(truth).all(axis=1))
            mine = rows[rows[:, 0] == frame]
            accumulator.add(known, truth[known], mine[:, 1].astype(np.int64), mine[:, 2:])
        mot = dataclasses.asdict(accumulator.result())
        expected = arrays[case + "motmetrics"]
        values = [mot[str(name).removeprefix("num_")] for name in arrays["t_order"]]
        yield Comparison(case + "motmetrics", max(relative_rms(a, b, floor=1e-9) for a, b in zip(
            values, expected, strict=True)), 1e-6)
    for case in case_prefixes(arrays, "a"):
        pairs = matching.pair_association(arrays[case + "pred"], arrays[case + "gt"], arrays[case + "view"])
        ours = {"precision": pairs.precision, "recall": pairs.recall, "f1": pairs.f1, "pair_accuracy": pairs.accuracy,
                "counts_tp_pp_gp_all": pairs.counts}
        for key, value in ours.items():
            yield Comparison(case + key, relative_rms(value, arrays[case + key], floor=1e-9), 1e-6)
    if "pck_pred" in arrays:
        pred, gt = arrays["pck_pred"], arrays["pck_gt"]
        for limit in (50, 100, 150):
            yield Comparison(f"pck{limit}", relative_rms(metrics.pck(pred, gt, limit), arrays[f"pck{limit}"]), 1e-6)
        key = "pck_auc_0_150mm_31steps"
        yield Comparison(key, relative_rms(metrics.pck_auc(pred, gt), arrays[key]), 1e-6)
    if "pcdr_pred_z" in arrays:
        ours_pcdr = metrics.pcdr(arrays["pcdr_pred_z"], arrays["pcdr_gt_z"])
        yield Comparison("pcdr_0p2m", relative_rms(ours_pcdr, arrays["pcdr_0p2m"]), 1e-6)


def _hsfm_metrics(arrays: Arrays) -> Iterator[Comparison]:
    for case, _ in named_cases(arrays):
        gt_c2w, pred_c2w = arrays[case + "gt_c2w"], arrays[case + "pred_c2w"]
        people = metrics.multiview_pose_errors_m(arrays[case + "pred_j"], arrays[case + "gt_j"],
                                                 pred_c2w[:, :3, 3], gt_c2w[:, :3, 3])
        rig = metrics.camera_rig_errors(pred_c2w, gt_c2w)
        degenerate = bool(arrays[case + "camera_alignment_degenerate"])
        ok = bool(np.isnan(rig["te_m"]).all()) == degenerate
        yield Comparison(case + "camera_alignment_degenerate", 0.0 if ok else float("inf"), 0.0)
        ours: dict[str, Any] = {"ga_mpjpe_m": people["ga_mpjpe"], "pa_mpjpe_m": people["pa_mpjpe"],
                                "AE": rig["ae_deg"], "scene_scale": rig["scene_scale_m"]}
        if not degenerate:
            ours |= {"w_mpjpe_m": people["w_mpjpe"], "TE": rig["te_m"], "s-TE": rig["s_te_m"],
                     "means_w_ga_pa": [people[k].mean() for k in ("w_mpjpe", "ga_mpjpe", "pa_mpjpe")]}
        for k in range(5, 31, 5):
            ours[f"RRA{k:02d}"] = rig["ae_deg"] < k
            if not degenerate:
                ours[f"CCA{k:02d}"] = rig["te_m"] < k / 100 * rig["scene_scale_m"]
                ours[f"s-CCA{k:02d}"] = rig["s_te_m"] < k / 100 * rig["scene_scale_m"]
        for key, value in ours.items():
            if case + key in arrays:
                yield Comparison(case + key, relative_rms(value, arrays[case + key], floor=1e-9), 1e-6)


CHECKS: dict[str, Callable[[Arrays], Iterator[Comparison]]] = {
    "align_umeyama": _align_umeyama,
    "world_metrics": _world_metrics,
    "local_metrics": _local_metrics,
    "traj_ate_rpe": _traj_ate_rpe,
    "depth": _depth,
    "detection_tracking": _detection_tracking,
    "hsfm_metrics": _hsfm_metrics,
}
"""File stem -> its check."""
