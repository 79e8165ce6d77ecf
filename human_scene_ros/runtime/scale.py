"""People and metric depth: the scale of the map by the bodies in it, and the bodies where a depth sensor sees them.

Bodies have a known size, so they know how far away they are. The head is put where the map says; the body hangs below
it, metric. If the map is too small the body is too near and its projected head-pelvis segment longer than it looks in
the image (`body.scale`, after CHROMM). One factor on the map makes the two equal; the scale moves slowly to the median
over people and frames, and stands still after a while. Where a sensor gives the scale, that factor tells whether sensor
and bodies agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.scale import (
    ScaleEstimate,
    ScaleFilter,
    ScaleSamples,
    ScaleStatus,
    sample_weights,
    scale_samples,
)
from human_scene_ros.body.skeleton import HEAD, PELVIS
from human_scene_ros.body.surface import (
    GAIN,
    HEAD_BEHIND_SURFACE_M,
    MIN_POINTS,
    MIN_VERTICES,
    head_from_depth,
    one_way_chamfer,
    surface_depth,
)
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.scene import ScaleSource

MAX_SENSED_RATIO = 2.0  # a sensor that disagrees by more sees something else in front of the head
SCALE_FILTER = ScaleFilter()
SCALE_CHECK = ScaleFilter(freeze_after=0)
"""For a scale that is known: measures, never moves."""


def people_samples(depth_m: NDArray[np.floating], person: NDArray[np.bool_], dense_camera: PinholeCamera,
                   camera: PinholeCamera, joints_camera: Sequence[NDArray[np.floating]], scores: Sequence[float],
                   ) -> tuple[ScaleSamples, NDArray[np.float64]]:
    """Each body against the depth of its head: (n) samples and their weights for `ScaleFilter.step`.

    The weight is 0 for who cannot be measured: too near, far, bent, hidden, cut off or doubtful.

    Args:
        depth_m: (h, w) of the map at its present scale, or of a sensor, along z; 0 or NaN where unknown.
        person: (h, w) its person mask.
        dense_camera: Intrinsics of both.
        camera: Intrinsics of the input image.
        joints_camera: (J >= 22, 3) of each body as it is seen: metric, and where it projects onto its picture.
        scores: Of each body, 0 to 1.
    """
    joints = np.array([j[[HEAD, PELVIS]] for j in joints_camera], np.float64).reshape(-1, 2, 3)
    head, delta = joints[:, 0], joints[:, 1] - joints[:, 0]
    at = np.array([surface_depth(depth_m, uv, person) for uv in dense_camera.project(head)])
    usable = (head[:, 2] > 2 * HEAD_BEHIND_SURFACE_M) & (joints[:, 1, 2] > 0.0) & np.isfinite(at)
    with np.errstate(divide="ignore", invalid="ignore"):
        head = head * np.where(usable, at / (head[:, 2] - HEAD_BEHIND_SURFACE_M), np.nan)[:, None]
    head_px, pelvis_px = camera.project(joints).transpose(1, 0, 2)
    with np.errstate(invalid="ignore"):
        inside = ((pelvis_px >= -0.5) & (pelvis_px < np.array([camera.width, camera.height]) - 0.5)).all(axis=1)
    samples = scale_samples(camera.K, head, delta, head_px, pelvis_px)
    return samples, sample_weights(samples, head, delta, np.asarray(scores, np.float64), inside & usable)


def surfaces_support(factor: float, surfaces: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> bool:
    """Cross-check of a factor on the map: does it bring the map's people a tenth nearer to their bodies?

    Measured by one-way Chamfer distance, over the whole visible side of everybody, not at the heads alone.

    Args:
        factor: On the map.
        surfaces: Of each body, (V, 3) vertices that are seen and (N, 3) points of the map, see `surface.body_surfaces`.
    """
    pairs = [(one_way_chamfer(vertices, points), one_way_chamfer(vertices, factor * points))
             for vertices, points in surfaces if len(vertices) >= MIN_VERTICES and len(points) >= MIN_POINTS]
    before, after = np.sum(pairs, axis=0) if pairs else (0.0, 0.0)
    return bool(after < GAIN * before)


def scale_problem(estimate: ScaleEstimate | None, source: ScaleSource, tolerance: float) -> str:
    """What is wrong with the scale by the people in it, to be read by people; "" = nothing known.

    Args:
        estimate: See `SceneEstimate.scale_by_people`.
        source: Of the scale in use.
        tolerance: How far from 1 the factor may be where a sensor gives the scale.
    """
    if estimate is None or estimate.status in (ScaleStatus.NO_SAMPLE, ScaleStatus.FEW_SAMPLES):
        return ""
    if source == ScaleSource.DEPTH and abs(estimate.factor - 1.0) > tolerance:
        return (f"people's size asks for {estimate.factor:.2f} times the depth sensor's distances: check its unit, its "
                "registration and the intrinsics, or raise scale.people_tolerance")
    if estimate.status == ScaleStatus.REJECTED:
        return (f"people's size asks for {estimate.factor:.2f} times the scale of the map, which is not believed: "
                "check the intrinsics, or use a depth sensor")
    return ""


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
