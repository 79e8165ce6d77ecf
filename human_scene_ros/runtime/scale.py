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
from human_scene_ros.body.surface import HEAD_BEHIND_SURFACE_M, head_from_depth, surface_depth
from human_scene_ros.geometry.camera import PinholeCamera

MAX_SENSED_RATIO = 2.0  # a sensor that disagrees by more sees something else in front of the head
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
        at = surface_depth(depth_m, dense_camera.project(joints[HEAD].astype(np.float64)), person) * state.scale
        if joints[HEAD, 2] > 2 * HEAD_BEHIND_SURFACE_M and joints[0, 2] > 0.0 and np.isfinite(at):
            heads.append(joints[HEAD] * at / (joints[HEAD, 2] - HEAD_BEHIND_SURFACE_M))
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
    ratios = []
    for joints in joints_camera:
        seen_px = camera.project(joints[HEAD].astype(np.float64))
        head, measured = head_from_depth(depth_m, camera.K, seen_px, mask=person)
        ratio = float(head[2] / joints[HEAD, 2]) if measured else 1.0
        ratios.append(ratio if 1.0 / MAX_SENSED_RATIO < ratio < MAX_SENSED_RATIO else 1.0)
    return ratios
