"""Which body a point of an estimate's cloud belongs to, and where on it the point lies.

Not part of the step of a stream, because few ask for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.model import BodyModel
from human_scene_ros.body.semantic import label_points, sampled_people
from human_scene_ros.scene import SceneEstimate, TrackState

NOBODY = -1


def semantic_columns(estimate: SceneEstimate, model: BodyModel, points_camera: NDArray[np.floating],
                     person: NDArray[np.bool_]) -> dict[str, NDArray]:
    """Fields of a cloud, one value for each of its points.

    Args:
        estimate: Its bodies say who is there.
        model: Poses them.
        points_camera: (N, 3) points of the estimate; NaN belongs to nobody.
        person: (N,) the person mask at these points.

    Returns:
        `instance_id` int32: track number, -1 = nobody; `body_u`, `body_v`, `body_w` float32: place on the body at rest,
        0 to 1 along x left, y up, z forward, 0 = nobody's; `confidence` float32: 1, 0.5 between two people, 0 = nobody.
    """
    # By track: of two people at one distance the lower number wins, whoever has the better score.
    bodies = sorted((b for b in estimate.bodies if b.track_state != TrackState.LOST), key=lambda b: b.track_id)
    vertices, places = sampled_people(model, [b.parameters for b in bodies])
    labels = label_points(points_camera, vertices, places, silhouette=person)
    numbers = np.array([b.track_id for b in bodies] + [NOBODY], np.int32)  # the last is nobody's, index -1
    return {"instance_id": numbers[labels.person],
            **{f"body_{axis}": labels.canonical[:, i].astype(np.float32) for i, axis in enumerate("uvw")},
            "confidence": labels.confidence.astype(np.float32)}
