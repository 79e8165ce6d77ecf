"""Skeletons drawn onto the camera image. No ROS import."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.nodes.markers import BodyView, color_of


def draw_people(image: NDArray[np.uint8], bodies: Sequence[BodyView], parents: Sequence[int]) -> NDArray[np.uint8]:
    """A copy of the (H, W, 3) RGB image with bones, joints and ids; far people first.

    Args:
        image: The image that the bodies' `joint_uv_px` refer to.
        bodies: Those without image points are left out.
        parents: Parent of each joint.
    """
    drawn = np.ascontiguousarray(image).copy()
    thick = max(1, round(image.shape[1] / 320))
    for body in sorted(bodies, key=lambda b: -b.distance_m):
        shade = color_of(body.track_id)
        color = tuple(round(255 * shade[c] * (0.5 if body.predicted else 1.0)) for c in ("r", "g", "b"))
        points = body.joint_uv_px[:22]
        known = np.all(np.isfinite(points) & (np.abs(points) < 1e5), axis=-1)  # cv2 takes 32-bit integers
        pixels = [tuple(int(v) for v in np.rint(p)) if k else None for p, k in zip(points, known, strict=True)]
        for joint in range(1, len(pixels)):
            start, end = pixels[joint], pixels[parents[joint]]
            if start is not None and end is not None:
                cv2.line(drawn, start, end, color, 2 * thick, cv2.LINE_AA)
        for pixel in pixels:
            if pixel is not None:
                cv2.circle(drawn, pixel, 2 * thick, (255, 255, 255), -1, cv2.LINE_AA)
        if len(pixels) > 15 and pixels[15] is not None:
            where = (pixels[15][0] + 4 * thick, pixels[15][1] - 4 * thick)
            cv2.putText(drawn, f"{body.track_id} {body.distance_m:.1f} m", where, cv2.FONT_HERSHEY_SIMPLEX,
                        0.45 * thick, color, thick, cv2.LINE_AA)
    return drawn
