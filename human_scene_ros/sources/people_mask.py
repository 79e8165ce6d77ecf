"""Which body a person's pixel of an estimate belongs to.

Not part of the step of a stream, because few ask for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.people_mask import label_people
from human_scene_ros.scene import SceneEstimate


def people_mask_of(estimate: SceneEstimate) -> NDArray[np.uint8]:
    """(h, w): 0 background, i + 1 = `bodies[i]`, 255 = a person that is no body."""
    return label_people(estimate.person, estimate.dense_camera, [body.joints_camera for body in estimate.bodies])
