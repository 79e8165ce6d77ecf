"""People and metric depth: the scale of the map by the bodies in it, and the bodies where a depth sensor sees them.

Bodies have a known size, so they know how far away they are. The head is put where the map says; the body hangs below
it, metric. If the map is too small the body is too near and its projected head-pelvis segment longer than it looks in
the image (`body.scale`, after CHROMM). One factor on the map makes the two equal; the scale moves slowly to the median
over people and frames, and stands still after a while.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.scale import ScaleFilter, ScaleState, sample_weights, scale_samples
from human_scene_ros.body.skeleton import HEAD
from human_scene_ros.geometry.camera import PinholeCamera

FACE_M = 0.1  # the map ends at the skin, the head joint lies behind it
MAX_SENSED_RATIO = 2.0  # a sensor that disagrees by more sees something else in front of the head
PATCH_PX = 2  # half the side of the patch of the map that is read at the head
MIN_PATCH_PX = 5
_FILTER = ScaleFilter()


def scale_by_people(depth_m: NDArray[np.floating], person: NDArray[np.bool_], dense_camera: PinholeCamera,
                    camera: PinholeCamera, joints_camera: Sequence[NDArray[np.floating]], scores: Sequence[float],
                    state: ScaleState) -> ScaleState:
    """The state after one frame; unchanged where nobody can be measured: too near, far, bent, hidden or doubtful.

    Args:
        depth_m: (h, w) the map at the network's own scale; NaN where unknown.
        person: (h, w) its person mask.
        dense_camera: Intrinsics of both.
        camera: Intrinsics of the input image.
        joints_camera: (J >= 22, 3) of each body as it is seen: metric, and where it projects onto its picture.
        scores: Of each body, 0 to 1.
        state: From the previous frame; `ScaleState()` at first.
    """
    heads, deltas, seen, confidence = [], [], [], []
    for joints, score in zip(joints_camera, scores, strict=True):
        at = _depth_at(dense_camera.project(joints[HEAD].astype(np.float64)), depth_m, person) * state.scale
        if joints[HEAD, 2] > 2 * FACE_M and joints[0, 2] > 0.0 and np.isfinite(at):
            heads.append(joints[HEAD] * at / (joints[HEAD, 2] - FACE_M))
            deltas.append(joints[0] - joints[HEAD])
            seen.append(camera.project(joints[[HEAD, 0]].astype(np.float64)))
            confidence.append(score)
    if not heads:
        return state
    head, delta, uv = np.stack(heads), np.stack(deltas), np.stack(seen)
    samples = scale_samples(camera.K, head, delta, uv[:, 0], uv[:, 1])
    return _FILTER.step(samples, sample_weights(samples, head, delta, np.array(confidence)), state)[1]


def sensed_ratios(depth_m: NDArray[np.floating], person: NDArray[np.bool_], camera: PinholeCamera,
                  joints_camera: Sequence[NDArray[np.floating]]) -> list[float]:
    """Distance of each head by a depth sensor over its estimated one; 1 where the sensor does not see it.

    Args:
        depth_m: (h, w) the sensor's, metres along z; 0 or NaN where unknown.
        person: (h, w) person mask.
        camera: Intrinsics of both.
        joints_camera: (J > 15, 3) of each body.
    """
    depth_m = np.where(depth_m > 0.0, depth_m, np.nan)
    ratios = []
    for joints in joints_camera:
        at = _depth_at(camera.project(joints[HEAD].astype(np.float64)), depth_m, person) + FACE_M
        ratio = at / float(joints[HEAD, 2]) if joints[HEAD, 2] > 0.0 else 0.0
        ratios.append(ratio if 1.0 / MAX_SENSED_RATIO < ratio < MAX_SENSED_RATIO else 1.0)
    return ratios


def _depth_at(uv_px: NDArray[np.floating], depth_m: NDArray[np.floating], person: NDArray[np.bool_]) -> float:
    """Median depth of the person's pixels around a place; NaN where there are too few."""
    if not np.isfinite(uv_px).all() or (np.abs(uv_px) > 1e6).any():
        return float("nan")
    column, row = np.rint(uv_px).astype(int)
    patch = tuple(slice(max(0, c - PATCH_PX), max(0, c + PATCH_PX + 1)) for c in (row, column))
    values = depth_m[patch][person[patch] & np.isfinite(depth_m[patch])]
    return float(np.median(values)) if len(values) >= MIN_PATCH_PX else float("nan")
