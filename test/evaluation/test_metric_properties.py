"""Every metric ignores the transforms that it should ignore and notices those that it should not.

One table: a metric as a function of (predicted, truth), the changes of the prediction that must not matter, and the
changes that must. A metric that is not in the table fails the last test.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.evaluation import depth, matching, metrics, tracking, trajectory
from human_scene_ros.evaluation.depth import depth_errors
from human_scene_ros.evaluation.tracking import TrackingAccumulator
from human_scene_ros.evaluation.trajectory import trajectory_errors

FRAMES, JOINTS = 12, 24
ROT = Rotation.from_euler("xyz", [0.4, -1.0, 2.0]).as_matrix()
FEET = [7, 10, 8, 11]
EMDB_JOINTS = [0, 1, 2, 4, 5, 16, 17, 18, 19]


def scene() -> tuple[np.ndarray, np.ndarray]:
    """(T, J, 3) prediction and truth of somebody who walks 2 m and puts the feet down in between."""
    rng = np.random.default_rng(11)
    pose = rng.normal(scale=0.35, size=(1, JOINTS, 3)) + rng.normal(scale=0.015, size=(FRAMES, JOINTS, 3))
    pose[:, FEET] = pose[:1, FEET]
    truth = pose + np.linspace(0.0, 2.0, FRAMES)[:, None, None] * np.array([1.0, 0.3, 0.0])
    truth[:, FEET] = np.repeat(truth[::4, FEET], 4, axis=0)[:FRAMES]
    return truth + rng.normal(scale=0.03, size=truth.shape), truth


Change = Callable[[np.ndarray], np.ndarray]


def shifted(x: np.ndarray) -> np.ndarray:
    """The whole prediction in another place."""
    return x + np.array([5.0, -2.0, 1.0])


def shifted_per_frame(x: np.ndarray) -> np.ndarray:
    """Another place in each frame."""
    return x + np.random.default_rng(1).normal(size=(len(x), 1, 3))


def drifting(x: np.ndarray) -> np.ndarray:
    """A place that changes steadily."""
    return x + np.linspace(0.0, 1.0, len(x))[:, None, None] * np.array([0.0, 1.0, 0.0])


def turned(x: np.ndarray) -> np.ndarray:
    """The whole prediction in another orientation."""
    return x @ ROT.T


def grown(x: np.ndarray) -> np.ndarray:
    """Everything larger by a tenth."""
    return 1.1 * x


def grown_much(x: np.ndarray) -> np.ndarray:
    """Everything larger by half; some thresholds need that."""
    return 1.5 * x


def mirrored(x: np.ndarray) -> np.ndarray:
    """A reflection: no alignment may undo it."""
    return x * np.array([1.0, 1.0, -1.0])


def negated(x: np.ndarray) -> np.ndarray:
    """Near and far exchanged."""
    return -x


def beyond_the_gate(x: np.ndarray) -> np.ndarray:
    """Farther than any tracking gate."""
    return x + 0.6


def bent(x: np.ndarray) -> np.ndarray:
    """One joint is 20 cm off, in every other frame."""
    moved = x.copy()
    moved[::2, 5] += 0.2
    return moved


def slipped(x: np.ndarray) -> np.ndarray:
    """A foot joint jumps to and fro by 5 cm."""
    moved = x.copy()
    moved[::2, FEET[0]] += 0.05
    return moved


def shuffled(x: np.ndarray) -> np.ndarray:
    """Frames in another order."""
    return x[::-1]


@dataclasses.dataclass(frozen=True)
class Property:
    measure: Callable[[np.ndarray, np.ndarray], object]
    ignores: tuple[Change, ...]
    notices: tuple[Change, ...]
    joint: bool = False  # `ignores` are applied to the truth as well: only the relation counts


def rotations(x: np.ndarray) -> np.ndarray:
    """Some (T, 24, 3, 3) rotations that follow the joints."""
    return Rotation.from_rotvec(x.reshape(-1, 3)).as_matrix().reshape(len(x), 24, 3, 3)


def tracked(p: np.ndarray, g: np.ndarray) -> list[float]:
    scores = TrackingAccumulator(0.5)
    for ours, true in zip(p[:, :3] + PLACES, g[:, :3] + PLACES, strict=True):
        scores.add(np.arange(3), true, np.array([7, 8, 9]), ours)
    result = scores.result()
    return [result.mota, result.idf1, result.motp, result.switches]


PLACES = np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0]])


def rig(x: np.ndarray) -> np.ndarray:
    """(T, 4, 4) poses whose centres are joint 0 with some height, and whose rotations follow joint 5."""
    poses = np.tile(np.eye(4), (len(x), 1, 1))
    poses[:, :3, 3] = x[:, 0] + 3.0 * (x[:, 3] - x[:, 0])
    poses[:, :3, :3] = Rotation.from_rotvec(x[:, 5]).as_matrix()
    return poses


def facing(x: np.ndarray) -> np.ndarray:
    """(T, 4, 4) poses at joint 0 that turn with the joints: x from joint 0 to 3, z across it and joint 5."""
    first, second = x[:, 3] - x[:, 0], x[:, 5] - x[:, 0]
    first = first / np.linalg.norm(first, axis=1, keepdims=True)
    across = np.cross(first, second)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    poses = np.tile(np.eye(4), (len(x), 1, 1))
    poses[:, :3, :3] = np.stack([first, np.cross(across, first), across], axis=2)
    poses[:, :3, 3] = x[:, 0]
    return poses


def rotated_world(T: np.ndarray) -> np.ndarray:
    """Poses in another world."""
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = ROT, [1.0, 2.0, 3.0]
    return moved @ T


def scaled_world(T: np.ndarray) -> np.ndarray:
    """Poses in a world that is larger by a tenth."""
    T = T.copy()
    T[:, :3, 3] *= 1.1
    return T


def nodding(T: np.ndarray) -> np.ndarray:
    """Every other camera looks elsewhere."""
    T = T.copy()
    T[::2, :3, :3] = T[::2, :3, :3] @ Rotation.from_rotvec([0.2, 0.0, 0.0]).as_matrix()
    return T


def jumping(T: np.ndarray) -> np.ndarray:
    """Every third camera stands elsewhere."""
    T = T.copy()
    T[::3, :3, 3] += 0.3
    return T


def on_poses(measure: Callable, *changes: Change) -> Callable[[np.ndarray, np.ndarray], object]:
    def measured(p: np.ndarray, g: np.ndarray) -> object:
        T = rig(p)
        for change in changes:
            T = change(T)
        return measure(T, rig(g))
    return measured


PROPERTIES: dict[str, Property] = {
    "mean_distance": Property(metrics.mean_distance, (turned, shifted), (bent,), joint=True),
    "root_error_mm": Property(metrics.root_error_mm, (bent,), (shifted, grown)),
    "mpjpe_mm": Property(metrics.mpjpe_mm, (shifted, shifted_per_frame), (turned, grown, mirrored, bent)),
    "pve_mm": Property(lambda p, g: metrics.pve_mm(p[:, 3:], g[:, 3:], p, g), (shifted, shifted_per_frame),
                       (turned, grown, bent)),
    "pa_mpjpe_mm": Property(metrics.pa_mpjpe_mm, (shifted, turned, grown, shifted_per_frame), (mirrored, bent)),
    "pa_mve_j_mm": Property(lambda p, g: metrics.pa_mve_j_mm(p[:, 3:], g[:, 3:], p, g), (shifted, turned, grown),
                            (mirrored, bent)),
    "mpjae_deg": Property(lambda p, g: metrics.mpjae_deg(rotations(p)[:, EMDB_JOINTS], rotations(g)), (),
                          (grown, bent)),
    "pck": Property(lambda p, g: metrics.pck(p, g, 80.0), (shifted, shifted_per_frame), (turned, grown_much, mirrored)),
    "pck_auc": Property(metrics.pck_auc, (shifted, shifted_per_frame), (turned, grown, bent)),
    "pcdr": Property(lambda p, g: metrics.pcdr(p[:, 0, 0], g[:, 0, 0]), (shifted,), (negated,)),
    "wa_mpjpe_mm": Property(lambda p, g: metrics.wa_mpjpe_mm(p, g, 8), (shifted, turned, grown), (
        drifting, mirrored, bent, shifted_per_frame)),
    "w_mpjpe_mm": Property(lambda p, g: metrics.w_mpjpe_mm(p, g, 8), (shifted, turned, grown), (
        drifting, mirrored, bent, shifted_per_frame)),
    "rte_percent": Property(lambda p, g: metrics.rte_percent(p[:, 0], g[:, 0]), (shifted, turned, bent),
                            (grown, drifting, shuffled)),
    "rte_percent, scaled": Property(lambda p, g: metrics.rte_percent(p[:, 0], g[:, 0], with_scale=True),
                                    (shifted, turned, grown, bent), (drifting, shuffled)),
    "jitter_10m_s3": Property(lambda p, g: metrics.jitter_10m_s3(p), (shifted, turned, drifting),
                              (grown, bent, shifted_per_frame)),
    "emdb_jitter_10m_s3": Property(lambda p, g: metrics.emdb_jitter_10m_s3(p), (shifted, turned, slipped),
                                   (grown, bent)),
    "foot_sliding_mm": Property(lambda p, g: metrics.foot_sliding_mm(p[:, FEET], g[:, FEET]), (shifted, turned, bent),
                                (grown, slipped, drifting)),
    "accel_error_m_s2": Property(metrics.accel_error_m_s2, (shifted, drifting), (bent, turned, shuffled)),
    "multiview_pose_errors_m, w": Property(
        lambda p, g: metrics.multiview_pose_errors_m(p[:3], g[:3], p[:, 0], g[:, 0])["w_mpjpe"], (shifted, turned),
        (grown, bent, drifting)),
    "w_mpjpe_pose_m": Property(
        lambda p, g: metrics.w_mpjpe_pose_m(p[:3], g[:3], facing(p), facing(g)), (shifted, turned),
        (grown, bent, drifting)),
    "camera_axis_tips": Property(
        lambda p, g: np.linalg.norm(metrics.camera_axis_tips(facing(p)) - metrics.camera_axis_tips(facing(g)), axis=1),
        (turned, shifted), (bent, grown), joint=True),
    "multiview_pose_errors_m, ga": Property(
        lambda p, g: metrics.multiview_pose_errors_m(p[:3], g[:3], p[:, 0], g[:, 0])["ga_mpjpe"],
        (shifted, turned, grown), (bent, shifted_per_frame)),
    "multiview_pose_errors_m, pa": Property(
        lambda p, g: metrics.multiview_pose_errors_m(p[:3], g[:3], p[:, 0], g[:, 0])["pa_mpjpe"],
        (shifted, turned, grown, shifted_per_frame), (bent, mirrored)),
    "TrackingAccumulator": Property(tracked, (turned, shifted), (beyond_the_gate,), True),
}

POSE_PROPERTIES: dict[str, tuple[Callable, tuple[Change, ...], tuple[Change, ...]]] = {
    "ate sim3": (lambda T, G: trajectory_errors(T, G, kind="sim3").ate_rmse_m,
                 (rotated_world, scaled_world, nodding), (jumping,)),
    "ate se3": (lambda T, G: trajectory_errors(T, G, kind="se3").ate_rmse_m, (rotated_world, nodding),
                (scaled_world, jumping)),
    "ate none": (lambda T, G: trajectory_errors(T, G, kind="none").ate_rmse_m, (nodding,),
                 (rotated_world, scaled_world, jumping)),
    "ate scale_only": (lambda T, G: trajectory_errors(T, G, kind="scale_only").ate_rmse_m, (nodding, scaled_world),
                       (rotated_world, jumping)),
    "rpe rotation": (lambda T, G: trajectory_errors(T, G, kind="se3").rpe_rot_rmse_deg,
                     (rotated_world, scaled_world, jumping), (nodding,)),
    "rpe translation": (lambda T, G: trajectory_errors(T, G, kind="none").rpe_trans_rmse_m, (rotated_world,),
                        (scaled_world, jumping, nodding)),
    "te": (lambda T, G: metrics.camera_rig_errors(T, G)["te_m"], (rotated_world, nodding), (scaled_world, jumping)),
    "s-te": (lambda T, G: metrics.camera_rig_errors(T, G)["s_te_m"], (rotated_world, scaled_world, nodding),
             (jumping,)),
    "ae": (lambda T, G: metrics.camera_rig_errors(T, G)["ae_deg"], (rotated_world, scaled_world, jumping), (nodding,)),
    "scene scale": (lambda T, G: metrics.camera_rig_errors(T, G)["scene_scale_m"],
                    (rotated_world, scaled_world, jumping, nodding), ()),
}


def same(a: object, b: object) -> bool:
    return np.allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-7, atol=1e-8, equal_nan=True)


@pytest.mark.parametrize(("name", "change"), [(n, c) for n, p in PROPERTIES.items() for c in p.ignores],
                         ids=lambda v: getattr(v, "__name__", v))
def test_ignored(name: str, change: Change):
    predicted, truth = scene()
    measure = PROPERTIES[name].measure
    assert same(measure(change(predicted), change(truth) if PROPERTIES[name].joint else truth),
                measure(predicted, truth))


@pytest.mark.parametrize(("name", "change"), [(n, c) for n, p in PROPERTIES.items() for c in p.notices],
                         ids=lambda v: getattr(v, "__name__", v))
def test_noticed(name: str, change: Change):
    predicted, truth = scene()
    measure = PROPERTIES[name].measure
    assert not same(measure(change(predicted), truth), measure(predicted, truth))


@pytest.mark.parametrize(("name", "change", "matters"), [
    (n, c, m) for n, (_, ignores, notices) in POSE_PROPERTIES.items()
    for m, changes in ((False, ignores), (True, notices)) for c in changes], ids=lambda v: getattr(v, "__name__", v))
def test_camera_poses(name: str, change: Change, matters: bool):
    predicted, truth = scene()
    measure = POSE_PROPERTIES[name][0]
    assert same(on_poses(measure, change)(predicted, truth), on_poses(measure)(predicted, truth)) != matters


# --- depth, detection, association: their inputs are no joints

DEPTH = {  # alignment: (what it forgives, what it does not)
    "metric": ((), (lambda d: 1.2 * d, lambda d: d + 0.5)),
    "median": ((lambda d: 1.2 * d,), (lambda d: d + 0.5,)),
    "scale": ((lambda d: 1.2 * d,), (lambda d: d + 0.5,)),
    "scale_lad": ((lambda d: 1.2 * d,), (lambda d: d + 0.5,)),
    "scale_shift_lstsq": ((lambda d: 1.2 * d, lambda d: 1.2 * d + 0.5), (lambda d: d**2,)),
    # Adam stops on the way: it forgives a factor, for it begins at the ratio of the medians.
    "scale_shift_lad2": ((lambda d: 1.2 * d,), (lambda d: d**2,)),
}


@pytest.mark.parametrize("alignment", sorted(DEPTH))
def test_depth(alignment: str):
    rng = np.random.default_rng(5)
    truth = rng.uniform(1.0, 9.0, (3, 20, 30))
    predicted = truth * rng.uniform(0.9, 1.1, truth.shape)

    def errors(d: np.ndarray) -> list[float]:
        return list(dataclasses.astuple(depth_errors(d, truth, alignment=alignment))[:7])  # type: ignore[arg-type]

    forgives, notices = DEPTH[alignment]
    rtol = 2e-3 if alignment == "scale_shift_lad2" else 1e-6  # its steps have a size of their own
    for change in forgives:
        np.testing.assert_allclose(errors(change(predicted)), errors(predicted), rtol=rtol)
    for change in notices:
        assert abs(errors(change(predicted))[0] - errors(predicted)[0]) > 1e-3
    # Which pixel comes first is nobody's business.
    order = rng.permutation(truth.size)
    mixed = depth_errors(predicted.reshape(-1)[order], truth.reshape(-1)[order], alignment=alignment)  # type: ignore[arg-type]
    np.testing.assert_allclose(dataclasses.astuple(mixed)[:7], errors(predicted), rtol=rtol)


def test_keypoint_matching_does_not_depend_on_order_or_position():
    rng = np.random.default_rng(6)
    person = rng.uniform(0.0, 1.0, (24, 2)) * [100.0, 300.0]
    truth = np.stack([person + [k * 260.0, 0.0] for k in range(4)])
    predicted = truth[[2, 0, 3]] + rng.normal(scale=4.0, size=(3, 24, 2))
    for optimal in (False, True):
        assert set(matching.match_keypoints(predicted, truth, optimal=optimal).pairs) == {(0, 2), (1, 0), (2, 3)}
        moved = matching.match_keypoints(predicted + [900.0, -50.0], truth + [900.0, -50.0], optimal=optimal)
        assert set(moved.pairs) == {(0, 2), (1, 0), (2, 3)}
        assert matching.match_keypoints(predicted + [900.0, 0.0], truth, optimal=optimal).pairs == ()


def test_heads_are_matched_wherever_the_image_is_and_not_beyond_the_limit():
    truth = np.array([[10.0, 10.0], [90.0, 10.0], [50.0, 70.0]])
    predicted = truth[[2, 0]] + [3.0, -4.0]
    assert set(matching.match_nearest(predicted, truth, 5.0)) == {(0, 2), (1, 0)}
    assert set(matching.match_nearest(predicted + 500.0, truth + 500.0, 5.0)) == {(0, 2), (1, 0)}
    assert set(matching.match_nearest(2.0 * predicted, 2.0 * truth, 10.0)) == {(0, 2), (1, 0)}
    assert matching.match_nearest(predicted, truth, 4.999) == []
    assert matching.match_nearest(predicted + [0.0, 50.0], truth, 5.0) == []


def test_pair_association_ignores_names_and_notices_swaps():
    truth, view = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 1])
    renamed = matching.pair_association(truth * 7 + 3, truth, view)
    assert (renamed.precision, renamed.recall, renamed.f1, renamed.accuracy) == (1.0, 1.0, 1.0, 1.0)
    swapped = matching.pair_association(np.array([0, 1, 2, 1, 0, 2]), truth, view)
    assert swapped.precision == swapped.recall == pytest.approx(1 / 3)


def test_tracking_ignores_track_names_and_counts_a_swap():
    def scores(swap: int) -> tuple[float, int]:
        accumulator = TrackingAccumulator(0.5)
        for frame in range(10):
            ids = np.array([70, 80] if frame < swap else [80, 70])
            accumulator.add(np.array([0, 1]), PLACES[:2], ids, PLACES[:2] + 0.1)
        return accumulator.result().idf1, accumulator.result().switches

    assert scores(99) == (1.0, 0)
    assert scores(5) == (0.5, 2)


# Public functions that are no metrics, or whose properties have a test of their own, by module.
NOT_IN_THE_TABLE = {
    metrics: {"nanmean", "pelvis_of", "path_length", "camera_rig_errors"},  # camera_rig_errors: POSE_PROPERTIES
    matching: {"match_nearest", "match_keypoints", "precision_recall_f1", "pair_association"},
    depth: {"depth_errors"}, trajectory: {"trajectory_errors", "align_trajectory", "read_tum", "associate"},
    tracking: set(),
}


def test_every_metric_has_a_property():
    """A new public function fails here until somebody says what it ignores and what it notices."""
    named = {name.split(",")[0] for name in PROPERTIES}
    for module, others in NOT_IN_THE_TABLE.items():
        public = {name for name, value in inspect.getmembers(module, inspect.isfunction)
                  if value.__module__ == module.__name__ and not name.startswith("_")}
        assert public - others <= named, public - others - named
        assert others <= public, f"{others - public} of {module.__name__} are gone"
    source = inspect.getsource(sys.modules[__name__])
    for others in NOT_IN_THE_TABLE.values():
        for name in others - {"read_tum", "associate", "align_trajectory", "nanmean", "pelvis_of"}:
            assert source.count(name) > 1, f"{name} is in no test of this file"
    assert all(p.ignores or p.notices for p in PROPERTIES.values())


# --- undefined is NaN, never a number, for every metric

ON_A_LINE = np.zeros((4, 24, 3)) + np.arange(24.0)[None, :, None] * [1.0, 2.0, 3.0]
NOBODY = np.zeros((0, 24, 3))


@pytest.mark.parametrize(("name", "measure"), [
    ("pa_mpjpe_mm, on a line", lambda: metrics.pa_mpjpe_mm(ON_A_LINE, ON_A_LINE)),
    ("pa_mpjpe_mm, many on a line", lambda: metrics.pa_mpjpe_mm(np.tile(ON_A_LINE, (20, 1, 1)),
                                                                np.tile(ON_A_LINE, (20, 1, 1)))),
    ("pa_mve_j_mm, on a line", lambda: metrics.pa_mve_j_mm(ON_A_LINE, ON_A_LINE, ON_A_LINE, ON_A_LINE)),
    ("wa_mpjpe_mm, on a line", lambda: metrics.wa_mpjpe_mm(ON_A_LINE, ON_A_LINE)),
    ("w_mpjpe_mm, on a line", lambda: metrics.w_mpjpe_mm(ON_A_LINE, ON_A_LINE)),
    ("rte_percent, standing", lambda: metrics.rte_percent(np.zeros((9, 3)), np.full((9, 3), 0.001))),
    ("w_mpjpe, cameras on a line", lambda: metrics.multiview_pose_errors_m(
        scene()[0][:2], scene()[1][:2], np.outer(np.arange(3.0), [1, 2, 3]), np.outer(np.arange(3.0), [1, 2, 3]))[
            "w_mpjpe"]),
    ("te, two cameras", lambda: metrics.camera_rig_errors(rig(scene()[0])[:2], rig(scene()[1])[:2])["te_m"]),
    ("pck, nobody", lambda: metrics.pck(NOBODY, NOBODY, 50.0)), ("pck_auc, nobody", lambda: metrics.pck_auc(
        NOBODY, NOBODY)),
    ("pcdr, one person", lambda: metrics.pcdr(np.ones(1), np.ones(1))),
    ("nanmean, nothing", lambda: metrics.nanmean([])),
    ("depth, no truth", lambda: depth_errors(np.ones((2, 2)), np.zeros((2, 2))).abs_rel),
    ("rpe, one pose", lambda: trajectory_errors(np.eye(4)[None], np.eye(4)[None], kind="none").rpe_rot_rmse_deg),
    ("ate, on a line", lambda: trajectory_errors(np.tile(np.eye(4), (3, 1, 1)), np.tile(np.eye(4), (3, 1, 1)),
                                                 kind="sim3").ate_rmse_m),
    ("precision, nothing", lambda: matching.precision_recall_f1(0, 0, 0)),
    ("association, nobody", lambda: matching.pair_association(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int)).f1),
    ("idf1, nobody", lambda: TrackingAccumulator().result().idf1),
], ids=lambda v: v if isinstance(v, str) else "")
def test_undefined_values_are_nan(name: str, measure: Callable[[], object]):
    values = np.ravel(np.asarray(measure(), np.float64))
    assert values.size and np.isnan(values).all(), name


@pytest.mark.parametrize("measure", [
    metrics.mpjpe_mm, metrics.pa_mpjpe_mm, metrics.root_error_mm, metrics.wa_mpjpe_mm, metrics.w_mpjpe_mm,
    metrics.mean_distance, metrics.accel_error_m_s2, metrics.foot_sliding_mm], ids=lambda m: m.__name__)
def test_nobody_gives_no_values(measure: Callable):
    assert np.size(measure(NOBODY, NOBODY)) == 0


def test_path_length_ignores_the_world_and_notices_the_scale():
    _, truth = scene()
    assert metrics.path_length(turned(shifted(truth[:, 0]))) == pytest.approx(metrics.path_length(truth[:, 0]))
    assert metrics.path_length(grown(truth[:, 0])) == pytest.approx(1.1 * metrics.path_length(truth[:, 0]))
