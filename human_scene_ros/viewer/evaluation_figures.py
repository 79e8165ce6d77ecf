"""Pictures that explain an evaluation: people of estimate and truth on the image, and depth beside its truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.skeleton import PARENTS
from human_scene_ros.evaluation.rig import RigMoment
from human_scene_ros.evaluation.synthetic import FrameTruth, countable_people, detections
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert
from human_scene_ros.scene import SceneEstimate
from human_scene_ros.viewer.overview import Image8, depth_colors

TRUTH_RGB, ESTIMATE_RGB = (255, 255, 255), (255, 138, 30)
"""Told apart by lightness as well as by hue; both have a dark outline, so that they stand on any picture."""

_OUTLINE_RGB = (20, 24, 32)
_NOTHING_RGB = (222, 225, 230)


def people_overlay(image: Image8, estimate: SceneEstimate | None, truth: FrameTruth | None,
                   width: int = 640) -> Image8:
    """The image at `width` pixels with the true people (white) and the estimated ones (orange) as skeletons."""
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    canvas = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if width < image.shape[1]
                        else cv2.INTER_CUBIC)
    canvas = np.ascontiguousarray(canvas)
    if truth is not None:
        camera = truth.camera.resized(width, height)
        for person in countable_people(truth):
            _skeleton(canvas, camera, np.asarray(person.joints_camera, np.float64)[:22], TRUTH_RGB)
    if estimate is not None:
        camera = estimate.camera.resized(width, height)
        for body in detections(estimate):
            _skeleton(canvas, camera, np.asarray(body.joints_camera, np.float64)[:22], ESTIMATE_RGB)
    return canvas


def rig_overlay(images: Mapping[str, Image8], moment: RigMoment, width: int = 480) -> Image8:
    """The images of one moment side by side, two in a row, with the true people (white) and the fused ones (orange).

    Args:
        images: Camera -> (H, W, 3) RGB; cameras without an image stay gray.
        moment: Cameras and people; every camera sees each side from its own world.
        width: Of each image.
    """
    panels = []
    for name, intrinsics in moment.cameras.items():
        height = max(1, round(intrinsics.height * width / intrinsics.width))
        canvas = np.full((height, width, 3), _NOTHING_RGB, np.uint8)
        if name in images:
            canvas = np.ascontiguousarray(cv2.resize(images[name], (width, height), interpolation=cv2.INTER_AREA))
        camera = intrinsics.resized(width, height)
        for people, poses, color in ((moment.truth, moment.T_world_true, TRUTH_RGB),
                                     (moment.estimate, moment.T_world_estimate, ESTIMATE_RGB)):
            for joints in people.joints_world if name in poses else ():
                _skeleton(canvas, camera, np.asarray(apply(invert(poses[name]), joints), np.float64), color)
        panels.append(canvas)
    tall = max(panel.shape[0] for panel in panels)
    framed = [np.pad(p, ((0, tall - p.shape[0] + 6), (0, 6), (0, 0)), constant_values=255) for p in panels]
    framed += [np.full_like(framed[0], 255)] * (len(framed) % 2)
    return np.vstack([np.hstack(framed[k:k + 2]) for k in range(0, len(framed), 2)])[:-6, :-6]


def _skeleton(canvas: Image8, camera: PinholeCamera, joints: NDArray[np.float64], color: Sequence[int]) -> None:
    uv = camera.project(joints)
    usable = np.isfinite(uv).all(axis=1) & (np.abs(uv) < 16000).all(axis=1)
    for thick, shade in ((5, _OUTLINE_RGB), (2, tuple(color))):
        for joint in range(1, 22):
            if usable[joint] and usable[PARENTS[joint]]:
                start, end = (tuple(int(round(16 * v)) for v in uv[k]) for k in (joint, PARENTS[joint]))
                cv2.line(canvas, start, end, shade, thick, cv2.LINE_AA, 4)


def depth_example(image: Image8, estimate: SceneEstimate, truth_depth_m: NDArray[np.floating],
                  width: int = 320) -> tuple[Image8, float, float]:
    """Image, estimated depth, true depth side by side in one colour scale, and the scale's ends in metres.

    Args:
        image: (H, W, 3) RGB.
        estimate: Of this image.
        truth_depth_m: (h, w) metres, 0 = none, of the same view.
        width: Of each of the three panels, pixels.
    """
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    estimated = _in_image(estimate, width, height)
    true = cv2.resize(np.asarray(truth_depth_m, np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    known = true[true > 0]
    low, high = (float(v) for v in np.percentile(known, [1, 99])) if known.size else (0.0, 1.0)
    high = max(high, low + 0.1)
    panels = [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)]
    for depth in (estimated, true):
        with np.errstate(invalid="ignore"):
            valid = np.isfinite(depth) & (depth > 0)
        colored = depth_colors(np.clip((np.where(valid, depth, low) - low) / (high - low), 0.0, 1.0))
        colored[~valid] = _NOTHING_RGB
        panels.append(colored)
    gap = np.full((height, 6, 3), 255, np.uint8)
    return np.hstack([panels[0], gap, panels[1], gap, panels[2]]), low, high


def _in_image(estimate: SceneEstimate, width: int, height: int) -> NDArray[np.float32]:
    """Depth of the estimate as seen by its image, resized: (height, width), NaN where the dense map does not reach."""
    camera, dense = estimate.camera.resized(width, height), estimate.dense_camera
    columns = (np.arange(width) - camera.cx) / camera.fx * dense.fx + dense.cx
    rows = (np.arange(height) - camera.cy) / camera.fy * dense.fy + dense.cy
    x, y = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    depth = np.ascontiguousarray(estimate.points_camera[..., 2], np.float32)
    return cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=float("nan"))
