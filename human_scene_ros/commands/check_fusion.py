"""Golden vectors of the fusion: one check per file of the fixture folder, used by `human-scene check DIR`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body import scale, semantic, surface
from human_scene_ros.evaluation import golden
from human_scene_ros.evaluation.golden import Comparison, case_prefixes, named_cases, relative_rms
from human_scene_ros.fusion import assignment, rotations, tracker, triangulation
from human_scene_ros.fusion.extrinsics import PeopleTracks, pose_from_people
from human_scene_ros.geometry.transform import invert, rotation_angle

Arrays = Mapping[str, NDArray[Any]]


def check_file(path: Path) -> list[Comparison]:
    """Compare one `.npz`; an empty list means that this file is about something else."""
    return golden.check_file(path, CHECKS)


def _exact(name: str, same: bool) -> Comparison:
    return Comparison(name, 0.0 if same else float("inf"), 0.0)


def _apart(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Angle of two rotations that nearly agree, radians; large, too, where one of them is no rotation."""
    return float(np.linalg.norm(a - b) / np.sqrt(2.0))


def _rotation(arrays: Arrays) -> Iterator[Comparison]:
    for c, _ in named_cases(arrays):
        q, w = arrays[c + "q_xyzw"], arrays[c + "w"]
        R = rotations.Rotation.from_quat(q).as_matrix()
        average = rotations.average_rotation(R, w)
        ambiguous = bool(arrays[c + "ambiguous"])
        yield _exact(c + "ambiguous", (average.status == rotations.RotationStatus.AMBIGUOUS) == ambiguous)
        widest = max(rotation_angle(a.T @ b) for a in R for b in R)
        yield Comparison(c + "max_pair_deg", abs(np.degrees(widest) - float(arrays[c + "max_pair_deg"])), 1e-5)
        yield Comparison(c + "eig_desc", float(np.abs(average.eigenvalues - arrays[c + "eig_desc"]).max()), 1e-9)
        if ambiguous:
            continue
        yield Comparison(c + "markley_R", _apart(average.rotation, arrays[c + "markley_R"]), 1e-9)
        if c + "karcher_R" in arrays:
            yield Comparison(c + "karcher_R", _apart(rotations.karcher_mean(R, w), arrays[c + "karcher_R"]), 1e-6)
        if c + "geomedian_R" in arrays:
            median = rotations.exact_geodesic_median(R, w)
            yield Comparison(c + "geomedian_R", _apart(median, arrays[c + "geomedian_R"]), 1e-6)
    if "betas" in arrays:
        mean = rotations.mean_betas(arrays["betas"], arrays["betas_w"])
        yield Comparison("betas_mean", relative_rms(mean, arrays["betas_mean"]), 1e-9)
        yield Comparison("betas_median", relative_rms(np.median(arrays["betas"], axis=0), arrays["betas_median"]), 1e-9)


def _triangulation(arrays: Arrays) -> Iterator[Comparison]:
    for c, _ in named_cases(arrays):
        C, d, w = (arrays[c + key] for key in ("C", "d", "w"))
        solution = triangulation.solve_rays(C, d, w)
        status = int(arrays[c + "status"])
        yield _exact(c + "status", int(solution.status) == status)
        condition = float(arrays[c + "lambda_min_over_sumw"])
        yield Comparison(c + "lambda_min_over_sumw", abs(solution.condition - condition), 1e-9)
        if status in (0, 3):
            size = max(1.0, float(np.linalg.norm(arrays[c + "X_ls"])))
            error = float(np.linalg.norm(solution.point - arrays[c + "X_ls"])) / size
            yield Comparison(c + "X_ls", error, 1e-9)
            # Rays without weight take no part in the solution; the file has their distances all the same.
            offset = solution.point - C
            depths = np.where(w > 0.0, solution.depths, (d * offset).sum(axis=1))
            residuals = np.where(w > 0.0, solution.residuals, np.linalg.norm(offset - depths[:, None] * d, axis=1))
            for key, ours in (("ray_depth", depths), ("ray_residual", residuals)):
                yield Comparison(c + key, relative_rms(ours, arrays[c + key], floor=1.0), 1e-9)
    if "outlier_case_index" in arrays:
        c = f"c{int(arrays['outlier_case_index'])}_"
        C, d, w = (arrays[c + key] for key in ("C", "d", "w"))
        for name, point in (("robust", triangulation.triangulate(C, d, w).point),
                            ("huber", triangulation.huber_triangulate(C, d, w).point)):
            error = float(np.linalg.norm(point - arrays["outlier_case_X_true"]))
            yield Comparison(f"outlier_case_X_true_{name}", error if np.isfinite(error) else float("inf"), 0.08)
    for m in case_prefixes(arrays, "map"):
        point, covariance = triangulation.fuse_points(arrays[m + "x"], arrays[m + "cov"], huber=None)
        yield Comparison(m + "X", relative_rms(point, arrays[m + "X"], floor=1.0), 1e-9)
        yield Comparison(m + "P", relative_rms(covariance, arrays[m + "P"]), 1e-9)


def _sinkhorn_tracker(arrays: Arrays) -> Iterator[Comparison]:
    for c, _ in named_cases(arrays):
        ours = tracker.sinkhorn_log(arrays[c + "scores"], float(arrays[c + "alpha"]), int(arrays[c + "iters"]))
        expected = arrays[c + "logP"]
        error = float(np.abs(ours - expected).max() / max(1.0, np.abs(expected).max()))
        yield Comparison(c + "logP", error, 1e-9)
    for t in case_prefixes(arrays, "trk"):
        reference = tracker.ReferenceTracker()
        offsets = arrays[t + "frame_offsets"]
        tokens = arrays[t + "tokens"].astype(np.float64)
        ids: list[int] = []
        sizes = []
        for first, last in zip(offsets[:-1], offsets[1:], strict=True):
            ids += reference.step(tokens[first:last])
            sizes.append(reference.memory_size)
        yield _exact(t + "ids", ids == arrays[t + "ids"].tolist())
        yield _exact(t + "memory_size_after", sizes == arrays[t + "memory_size_after"].tolist())


def _assignment(arrays: Arrays) -> Iterator[Comparison]:
    for c, _ in named_cases(arrays):
        cost, gate = arrays[c + "cost"], float(arrays[c + "gate"])
        pairs = assignment.gated_assignment(cost, gate)
        gain = float((gate - cost[pairs[:, 0], pairs[:, 1]]).sum())
        yield _exact(c + "pairs", sorted(pairs.tolist()) == sorted(arrays[c + "pairs"].tolist()))
        yield Comparison(c + "total_gain", abs(gain - float(arrays[c + "total_gain"])), 1e-9)
    for g, name in named_cases(arrays, "group_names", "g"):
        view, cost, gate = arrays[g + "view"], arrays[g + "cost"], float(arrays[g + "gate"])
        labels = assignment.group_detections(view, cost, gate)
        clash = any(len(set(view[labels == k].tolist())) < (labels == k).sum() for k in np.unique(labels))
        yield _exact(g + "one_per_view", not clash)
        objective = assignment.group_objective(labels, cost, gate)
        yield Comparison(g + "objective", abs(objective - float(arrays[g + "objective"])), 1e-9)
        expected = arrays[g + "labels"]
        if name == "two_people_same_place":  # any grouping of that objective is right
            best = assignment.group_objective(expected, cost, gate)
            yield Comparison(g + "labels", abs(best - float(arrays[g + "objective"])), 1e-9)
        else:
            same = np.array_equal(labels[:, None] == labels, expected[:, None] == expected)
            yield _exact(g + "labels", same)


def _scale(arrays: Arrays) -> Iterator[Comparison]:
    for c, _ in named_cases(arrays):
        samples = scale.scale_samples(arrays[c + "K"], arrays[c + "head_cam"], arrays[c + "head_to_pelvis_cam"],
                                      arrays[c + "head_uv"], arrays[c + "pelvis_uv"])
        yield Comparison(c + "ell_smpl", relative_rms(samples.length_smpl_px, arrays[c + "ell_smpl"]), 1e-9)
        yield Comparison(c + "ell_img", relative_rms(samples.length_image_px, arrays[c + "ell_img"]), 1e-9)
        yield Comparison(c + "ratio", relative_rms(samples.ratio, arrays[c + "ratio"]), 1e-9)
        yield _exact(c + "valid", np.array_equal(samples.valid, arrays[c + "valid"]))
        yield Comparison(c + "rho", relative_rms(samples.rho, arrays[c + "rho"]), 1e-6)
        modes: tuple[tuple[str, Literal["median", "mean", "trimmed"]], ...] = (
            ("r_mean_paper", "mean"), ("rho_median", "median"), ("rho_trimmed20", "trimmed"))
        for key, mode in modes:
            ours = scale.estimate_scale(samples, mode=mode).factor
            yield Comparison(c + key, relative_rms(ours, arrays[c + key]), 1e-6)
        of_ratios = dataclasses.replace(samples, rho=samples.ratio)
        yield Comparison(c + "r_median", relative_rms(scale.estimate_scale(of_ratios).factor, arrays[c + "r_median"]),
                         1e-9)


def _extrinsics(arrays: Arrays) -> Iterator[Comparison]:
    for c, _ in named_cases(arrays):
        result = pose_from_people(PeopleTracks(arrays[c + "stamp_A"], arrays[c + "joints_A"]),
                                  PeopleTracks(arrays[c + "stamp_B"], arrays[c + "joints_B"]))
        difference = invert(arrays[c + "true_T_A_B"]) @ result.T_a_b
        angle = float(np.degrees(rotation_angle(difference[:3, :3])))
        yield Comparison(c + "rot_deg", angle, float(arrays[c + "tol_rot_deg"]))
        distance = float(np.linalg.norm(result.T_a_b[:3, 3] - arrays[c + "true_T_A_B"][:3, 3]))
        yield Comparison(c + "trans_m", distance, float(arrays[c + "tol_trans_m"]))
        yield _exact(c + "dt_observable", result.offset_observable == bool(arrays[c + "dt_observable"]))
        if arrays[c + "dt_observable"]:
            yield Comparison(c + "dt_s", abs(result.offset_s - float(arrays[c + "true_dt"])),
                             float(arrays[c + "tol_dt_s"]))


def _surface(arrays: Arrays) -> Iterator[Comparison]:
    for s in case_prefixes(arrays, "s"):
        vertices = arrays[s + "verts_cam"].astype(np.float64)
        points = arrays[s + "points_cam"]
        places = semantic.template_places(arrays[s + "verts_canonical"])
        labels = semantic.label_points(points, vertices, places, radius_m=float(arrays[s + "radius_m"]))
        yield _exact(s + "nn_person", np.array_equal(labels.person, arrays[s + "nn_person"]))
        yield _exact(s + "nn_vertex", np.array_equal(labels.vertex, arrays[s + "nn_vertex"]))
        # The file has the distance of every point; labelling stops looking where nobody is near.
        distance = semantic.label_points(points, vertices, places, radius_m=np.inf).distance_m
        yield Comparison(s + "nn_dist", relative_rms(distance, arrays[s + "nn_dist"]), 1e-9)
        yield Comparison(s + "canonical_rgb", relative_rms(labels.canonical, arrays[s + "canonical_rgb"]), 1e-9)
        chamfer, order = [], []
        for p in range(len(vertices)):
            visible, mine = vertices[p][arrays[s + "visible"][p]], points[arrays[s + "instance_gt"] == p]
            chamfer.append(surface.one_way_chamfer(visible, mine))
            order.append(surface.depth_order(visible, mine))
        yield Comparison(s + "one_way_chamfer_m", relative_rms(chamfer, arrays[s + "one_way_chamfer_m"]), 1e-9)
        yield Comparison(s + "depth_order_relu_m", relative_rms(order, arrays[s + "depth_order_relu_m"], 1e-3), 1e-9)


def _end_to_end(arrays: Arrays) -> Iterator[Comparison]:
    """The whole route on recorded detections, by the acceptance limits of the benchmark."""
    from human_scene_ros.commands.bench_fusion import run_clip
    from human_scene_ros.synthetic.multiview import FPS, clip_from_arrays

    if float(arrays["fps"]) != FPS:
        raise ValueError(f"fps = {arrays['fps']}: the benchmark runs at {FPS:g} frames per second")
    if (np.diff(arrays["det_frame"]) < 0).any():
        raise ValueError("det_frame falls; expected rows in the order of frames")
    scores = run_clip(clip_from_arrays(arrays)).scores
    yield Comparison("assoc_precision_missing", 1.0 - scores["assoc_precision"], 0.02)
    yield Comparison("assoc_recall_missing", 1.0 - scores["assoc_recall"], 0.05)
    yield Comparison("id_switches", float(scores["id_switches"]), 0.0)
    yield Comparison("wa_mpjpe_fused_mm", scores["wa_mpjpe_fused_mm"], 85.0)
    yield Comparison("wa_mpjpe_fused_over_single", scores["wa_mpjpe_fused_mm"] / scores["wa_mpjpe_single_mm"], 0.4)


CHECKS: dict[str, Callable[[Arrays], Iterator[Comparison]]] = {
    "fusion_rotation": _rotation,
    "fusion_triangulation": _triangulation,
    "fusion_sinkhorn_tracker": _sinkhorn_tracker,
    "fusion_assignment": _assignment,
    "fusion_scale": _scale,
    "fusion_extrinsics": _extrinsics,
    "fusion_surface": _surface,
    "bench_e2e_v4p3": _end_to_end,
}
"""File stem -> its check."""
