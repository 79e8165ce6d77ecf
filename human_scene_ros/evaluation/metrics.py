"""Errors of people against a truth: pure functions, units in the names, alignment in the names.

Definitions follow the reference protocols of WHAM, GVHMR, EMDB and HSfM; every alignment is stated where it
happens. Undefined values (degenerate alignment, empty set) are NaN, never 0. Arrays are metres; results
named `_mm` are millimetres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ShapeError
from human_scene_ros.evaluation.alignment import umeyama

Array = NDArray[np.float64]

REFERENCE_FPS = 30.0
"""Jitter and acceleration are defined at this rate; other rates are not comparable with published numbers."""

_CACHED_FRAMES = 2048
"""So many sets of joints stay in a processor's cache while they are worked on."""

_MPJAE_JOINTS = (0, 1, 2, 4, 5, 16, 17, 18, 19)
_JITTER_IGNORED_JOINTS = (0, 7, 8, 10, 11, 20, 21, 22, 23)


def nanmean(values: NDArray[np.floating] | Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN for none, without a warning."""
    array = np.asarray(values, np.float64)
    known = array[~np.isnan(array)]
    return float(known.mean()) if known.size else float("nan")


def _pair(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> tuple[Array, Array]:
    ours, true = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if ours.shape != true.shape or ours.ndim < 2 or ours.shape[-1] != 3:
        raise ShapeError(f"predicted has shape {ours.shape}, truth has {true.shape}; expected the same (..., J, 3)")
    return ours, true


def mean_distance(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> Array:
    """(..., J, 3) twice -> (...) mean distance over J, in the unit of the points. No alignment."""
    predicted, truth = _pair(predicted, truth)
    return _lengths(predicted - truth).mean(axis=-1)


def _in_blocks(measure: Callable[[Array, Array], Array], predicted: Array, truth: Array, *,
               whole: bool = False) -> Array:
    """(..., J, 3) twice -> (...) or (..., J), as `measure` gives; with `whole`, one row per block.

    Blocks that stay in the processor's cache are twice as fast as all at once.
    """
    shape, size = truth.shape[:-2], _CACHED_FRAMES
    ours, true = (x.reshape(-1, *x.shape[-2:]) for x in (predicted, truth))
    parts = [measure(ours[k:k + size], true[k:k + size]) for k in range(0, len(true), size)]
    if whole:
        return np.concatenate(parts) if parts else np.empty(0)
    return np.concatenate(parts).reshape((*shape, *parts[0].shape[1:])) if parts else np.empty(shape)


def _lengths(vectors: Array) -> Array:
    """(..., 3) -> (...); three times as fast as `np.linalg.norm` on the last axis."""
    return np.sqrt(np.einsum("...i,...i->...", vectors, vectors))


# --- camera frame ------------------------------------------------------------------------------------------------

def pelvis_of(joints: NDArray[np.floating], pelvis_joints: Sequence[int]) -> Array:
    """(..., J, 3) -> (..., 3) mean of the named joints ([1, 2] = the hips of SMPL, [0] = its pelvis)."""
    return np.asarray(joints, np.float64)[..., list(pelvis_joints), :].mean(axis=-2)


def root_error_mm(predicted: NDArray[np.floating], truth: NDArray[np.floating],
                  pelvis_joints: Sequence[int] = (1, 2)) -> Array:
    """(..., J, 3) -> (...) distance of the pelvises, mm; camera frame, no alignment."""
    predicted, truth = _pair(predicted, truth)
    difference = pelvis_of(predicted, pelvis_joints) - pelvis_of(truth, pelvis_joints)
    return 1e3 * np.linalg.norm(difference, axis=-1)


def mpjpe_mm(predicted: NDArray[np.floating], truth: NDArray[np.floating],
             pelvis_joints: Sequence[int] = (1, 2)) -> Array:
    """(..., J, 3) -> (...) mean joint distance after both pelvises are moved to the origin, mm."""
    def measure(ours: Array, true: Array) -> Array:
        difference = ours - true
        difference -= pelvis_of(difference, pelvis_joints)[..., None, :]
        return 1e3 * _lengths(difference).mean(axis=-1)

    return _in_blocks(measure, *_pair(predicted, truth))


def pve_mm(predicted_vertices: NDArray[np.floating], truth_vertices: NDArray[np.floating],
           predicted_joints: NDArray[np.floating], truth_joints: NDArray[np.floating],
           pelvis_joints: Sequence[int] = (1, 2)) -> Array:
    """(..., V, 3) and (..., J, 3) -> (...) mean vertex distance after pelvis alignment, mm."""
    return 1e3 * mean_distance(predicted_vertices - pelvis_of(predicted_joints, pelvis_joints)[..., None, :],
                               truth_vertices - pelvis_of(truth_joints, pelvis_joints)[..., None, :])


def pa_mpjpe_mm(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> Array:
    """(..., J, 3) -> (...) mean distance after one Sim(3) per item (Procrustes), mm; NaN where degenerate."""
    return _in_blocks(lambda ours, true: 1e3 * mean_distance(umeyama(ours, true).apply(ours), true),
                      *_pair(predicted, truth))


def pa_mve_j_mm(predicted_vertices: NDArray[np.floating], truth_vertices: NDArray[np.floating],
                predicted_joints: NDArray[np.floating], truth_joints: NDArray[np.floating]) -> Array:
    """Vertex distance after a Sim(3) fitted on the JOINTS (EMDB), mm; (..., V, 3) and (..., J, 3) -> (...)."""
    alignment = umeyama(predicted_joints, truth_joints)
    return 1e3 * mean_distance(alignment.apply(predicted_vertices), truth_vertices)


def mpjae_deg(predicted_rot9: NDArray[np.floating], truth_rot24: NDArray[np.floating]) -> Array:
    """Angles between global orientations of the nine joints of EMDB, degrees.

    Args:
        predicted_rot9: (T, 9, 3, 3) of joints 0, 1, 2, 4, 5, 16, 17, 18, 19.
        truth_rot24: (T, 24, 3, 3) of all SMPL joints.

    Returns:
        (T, 9) degrees.
    """
    truth = np.asarray(truth_rot24, np.float64)[:, list(_MPJAE_JOINTS)]
    difference = np.swapaxes(np.asarray(predicted_rot9, np.float64), -1, -2) @ truth
    angles = Rotation.from_matrix(difference.reshape(-1, 3, 3)).magnitude()
    return np.degrees(angles).reshape(difference.shape[:-2])


def pck(predicted: NDArray[np.floating], truth: NDArray[np.floating], threshold_mm: float) -> float:
    """Fraction of (N, J, 3) joints nearer than the threshold (strict), both sets minus joint 0."""
    distance_mm = _in_blocks(_rooted_distance_mm, *_pair(predicted, truth))
    return float((distance_mm < threshold_mm).mean()) if distance_mm.size else float("nan")


def pck_auc(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Mean of PCK (not strict) over 0, 5, ..., 150 mm."""
    limits = range(0, 151, 5)

    def measure(ours: Array, true: Array) -> Array:
        distance = _rooted_distance_mm(ours, true)
        return np.array([[np.count_nonzero(distance <= limit) for limit in limits]], np.float64)

    predicted, truth = _pair(predicted, truth)
    counts = _in_blocks(measure, predicted, truth, whole=True)
    return float(counts.sum() / len(limits) / (truth.size // 3)) if truth.size else float("nan")


def _rooted_distance_mm(predicted: Array, truth: Array) -> Array:
    difference = predicted - truth
    difference -= difference[..., :1, :].copy()
    return 1e3 * _lengths(difference)


def pcdr(predicted_z: NDArray[np.floating], truth_z: NDArray[np.floating], margin_m: float = 0.2) -> float:
    """Fraction of pairs of people whose order in depth (nearer, within the margin, farther) is right; NaN for < 2."""
    first, second = np.triu_indices(len(truth_z), 1)
    if not len(first):
        return float("nan")

    def order(z: NDArray[np.floating]) -> NDArray[np.int64]:
        difference = np.asarray(z, np.float64)[first] - np.asarray(z, np.float64)[second]
        return np.where(np.abs(difference) < margin_m, 0, np.sign(difference)).astype(np.int64)

    return float((order(predicted_z) == order(truth_z)).mean())


# --- world frame, one person over time ---------------------------------------------------------------------------

def _chunked_mpjpe_mm(predicted: NDArray[np.floating], truth: NDArray[np.floating], fit_frames: int | None,
                      chunk: int) -> Array:
    """(T, J, 3) -> (T,); some whole chunks at a time, then the shorter rest."""
    predicted, truth = _pair(predicted, truth)
    whole, at_once = len(truth) // chunk * chunk, max(1, _CACHED_FRAMES // chunk) * chunk
    errors = []
    for begin in (*range(0, whole, at_once), *([whole] if whole < len(truth) else [])):
        part = slice(begin, min(begin + at_once, whole) if begin < whole else None)
        length = chunk if begin < whole else len(truth) - whole
        ours, true = (x[part].reshape(-1, length, *x.shape[1:]) for x in (predicted, truth))
        fit = slice(0, fit_frames)
        alignment = umeyama(*(x[:, fit].reshape(len(x), -1, 3) for x in (ours, true)))
        moved = alignment.apply(ours.reshape(len(ours), -1, 3)).reshape(ours.shape)
        moved -= true
        errors.append(1e3 * _lengths(moved).mean(axis=-1).reshape(-1))
    return np.concatenate(errors) if errors else np.empty(0)


def wa_mpjpe_mm(predicted_world: NDArray[np.floating], truth_world: NDArray[np.floating], chunk: int = 100) -> Array:
    """(T, J, 3) -> (T,) mm; one Sim(3) on all joints of each chunk of frames that are valid in both."""
    return _chunked_mpjpe_mm(predicted_world, truth_world, None, chunk)


def w_mpjpe_mm(predicted_world: NDArray[np.floating], truth_world: NDArray[np.floating], chunk: int = 100) -> Array:
    """(T, J, 3) -> (T,) mm; Sim(3) on the first two frames of each chunk, so drift inside it counts."""
    return _chunked_mpjpe_mm(predicted_world, truth_world, 2, chunk)


def rte_percent(predicted_root: NDArray[np.floating], truth_root: NDArray[np.floating], *, with_scale: bool = False,
                min_path_m: float = 0.5) -> Array:
    """Root trajectory error: (T, 3) -> (T,) percent of the true path length, after SE(3) (or Sim(3)).

    NaN for paths shorter than `min_path_m`: a standing person makes the quotient meaningless.
    """
    predicted_root, truth_root = np.asarray(predicted_root, np.float64), np.asarray(truth_root, np.float64)
    moved = umeyama(predicted_root, truth_root, with_scale=with_scale).apply(predicted_root)
    length = path_length(truth_root)
    if length < min_path_m:
        return np.full(len(truth_root), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return 100.0 * np.linalg.norm(moved - truth_root, axis=-1) / length


def path_length(positions: NDArray[np.floating]) -> float:
    """(T, 3) -> metres."""
    return float(np.linalg.norm(np.diff(np.asarray(positions, np.float64), axis=0), axis=-1).sum())


def jitter_10m_s3(joints_world: NDArray[np.floating], fps: float = REFERENCE_FPS) -> Array:
    """(T, J, 3) -> (T - 3,) mean jerk over the joints, in 10 m/s^3."""
    x = np.asarray(joints_world, np.float64)
    return _over_time(_jerk, x, 3) * (fps**3 / 10.0)


def _jerk(x: Array) -> Array:
    return _lengths(x[3:] - x[:-3] - 3.0 * (x[2:-1] - x[1:-2])).mean(axis=-1)


def _bend(x: Array) -> Array:
    return _lengths(x[2:] + x[:-2] - 2.0 * x[1:-1]).mean(axis=-1)


def _over_time(measure: Callable[[Array], Array], x: Array, longer: int) -> Array:
    """(T, J, 3) -> (T - longer,) of a `measure` over neighbours in time, in blocks that stay in the cache."""
    parts = [measure(x[k:k + _CACHED_FRAMES + longer]) for k in range(0, max(len(x) - longer, 1), _CACHED_FRAMES)]
    return np.concatenate(parts)


def emdb_jitter_10m_s3(joints_world: NDArray[np.floating], fps: float = REFERENCE_FPS) -> tuple[float, float]:
    """EMDB's jitter of (T, 24, 3), mean and standard deviation: nine joints count as 0 but still divide."""
    x = np.asarray(joints_world, np.float64)
    jerk = np.linalg.norm((x[3:] - 3 * x[2:-1] + 3 * x[1:-2] - x[:-3]) * fps**3, axis=-1)
    jerk[:, list(_JITTER_IGNORED_JOINTS)] = 0.0
    return float(jerk.mean() / 10.0), float(jerk.std(axis=0).mean() / 10.0)


def foot_sliding_mm(predicted_feet: NDArray[np.floating], truth_feet: NDArray[np.floating]) -> Array:
    """(T, F, 3) world points of the feet -> predicted displacement (mm) wherever the true one is below 10 mm.

    Values are ordered by time, then point; empty without contact.
    """
    predicted_feet, truth_feet = _pair(predicted_feet, truth_feet)
    contact = np.linalg.norm(np.diff(truth_feet, axis=0), axis=-1) < 0.01
    return 1e3 * np.linalg.norm(np.diff(predicted_feet, axis=0), axis=-1)[contact]


def accel_error_m_s2(predicted: NDArray[np.floating], truth: NDArray[np.floating],
                     valid: NDArray[np.bool_] | None = None, fps: float = REFERENCE_FPS) -> Array:
    """(T, J, 3) -> (T - 2,) mean over joints of |a_predicted - a_truth|; windows touching an invalid frame drop."""
    predicted, truth = _pair(predicted, truth)
    difference = predicted - truth
    error = _over_time(_bend, difference, 2) * fps**2
    if valid is None:
        return error
    valid = np.asarray(valid, bool)
    return error[valid[:-2] & valid[1:-1] & valid[2:]]


# --- several cameras (HSfM protocol), one time step -------------------------------------------------------------

def multiview_pose_errors_m(predicted_joints: NDArray[np.floating], truth_joints: NDArray[np.floating],
                            predicted_centres: NDArray[np.floating],
                            truth_centres: NDArray[np.floating]) -> dict[str, Array]:
    """(P, J, 3) joints and (V, 3) camera centres -> (P, J) metres each: `w_mpjpe`, `ga_mpjpe`, `pa_mpjpe`.

    W: SE(3) on the camera centres; GA: one Sim(3) on all joints; PA: one Sim(3) per person.
    """
    predicted, truth = _pair(predicted_joints, truth_joints)

    def distance(moved: Array) -> Array:
        return np.linalg.norm(moved - truth, axis=-1)

    flat = predicted.reshape(-1, 3)
    by_cameras = umeyama(predicted_centres, truth_centres, with_scale=False)
    together = umeyama(flat, truth.reshape(-1, 3))
    return {"w_mpjpe": distance(by_cameras.apply(flat).reshape(truth.shape)),
            "ga_mpjpe": distance(together.apply(flat).reshape(truth.shape)),
            "pa_mpjpe": distance(umeyama(predicted, truth).apply(predicted))}


def camera_axis_tips(T_world_camera: NDArray[np.floating]) -> Array:
    """(V, 4, 4) -> (4 V, 3): the centre of each camera and the points one metre along its axes.

    Cameras on a line, or two of them, leave a turn open if only their centres are aligned; these points do not.
    """
    poses = np.asarray(T_world_camera, np.float64)
    centre = poses[:, None, :3, 3]
    return np.concatenate([centre, centre + np.swapaxes(poses[:, :3, :3], -1, -2)], axis=1).reshape(-1, 3)


def w_mpjpe_pose_m(predicted_joints: NDArray[np.floating], truth_joints: NDArray[np.floating],
                   T_world_predicted: NDArray[np.floating], T_world_truth: NDArray[np.floating]) -> Array:
    """W-MPJPE after an SE(3) on the cameras' poses instead of their centres; (P, J, 3), (V, 4, 4) -> (P, J) metres."""
    predicted, truth = _pair(predicted_joints, truth_joints)
    alignment = umeyama(camera_axis_tips(T_world_predicted), camera_axis_tips(T_world_truth), with_scale=False)
    return _lengths(alignment.apply(predicted.reshape(-1, 3)).reshape(truth.shape) - truth)


def camera_rig_errors(T_world_predicted: NDArray[np.floating], T_world_truth: NDArray[np.floating]) -> dict[str, Array]:
    """(V, 4, 4) camera poses, each in its own world -> errors of a rig.

    Returns:
        `te_m`, `s_te_m`: (V,) centre errors after SE(3) and Sim(3) on the centres; `ae_deg`: (V (V - 1) / 2,)
        relative rotation errors of the pairs i < j; `scene_scale_m`: (), largest distance of a true centre from
        their mean. CCA@k is `te_m < k / 100 * scene_scale_m`, RRA@k is `ae_deg < k`.
    """
    predicted, truth = np.asarray(T_world_predicted, np.float64), np.asarray(T_world_truth, np.float64)
    source, target = predicted[:, :3, 3], truth[:, :3, 3]
    errors = [np.linalg.norm(umeyama(source, target, with_scale=scale).apply(source) - target, axis=-1)
              for scale in (False, True)]
    first, second = np.triu_indices(len(truth), 1)
    relative = [np.swapaxes(T[first, :3, :3], -1, -2) @ T[second, :3, :3] for T in (predicted, truth)]
    angle = Rotation.from_matrix(np.swapaxes(relative[0], -1, -2) @ relative[1]).magnitude()
    scale_m = np.linalg.norm(target - target.mean(axis=0), axis=-1).max()
    return {"te_m": errors[0], "s_te_m": errors[1], "ae_deg": np.degrees(angle), "scene_scale_m": np.array(scale_m)}
