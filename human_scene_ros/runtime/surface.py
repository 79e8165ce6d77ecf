"""Bodies of one frame against the points of the people they are: how much nearer or farther each one stands.

A network tells a body's distance from its size; the map, or a depth sensor, sees where its skin is.
`body.surface.align_to_surface` brings the one to the other, along the ray, for those bodies where that is sure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.body.model import BodyModel, body_mesh, rest_joints, skin
from human_scene_ros.body.people_mask import label_people
from human_scene_ros.body.skeleton import HEAD, PELVIS
from human_scene_ros.body.surface import SurfaceStatus, align_to_surface, vertex_normals, visible_vertices
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.runtime.tracks import Observation

ERODE_PX = 2  # at the outline of a person the map is a mixture of her and what lies behind
LOD = 1
CELLS = 32  # of the z-buffer: as many vertices in each as the full mesh has in one of 64 by 64


def surface_ratios(model: BodyModel, points_camera: NDArray[np.floating], person: NDArray[np.bool_],
                   camera: PinholeCamera, observations: Sequence[Observation]) -> list[float]:
    """Factor on the distance of each head that brings the body to the person's points; 1 where nothing is sure.

    Args:
        model: Poses the bodies.
        points_camera: (h, w, 3) map, metres; NaN where unknown.
        person: (h, w) its person mask.
        camera: Intrinsics of both.
        observations: Bodies of the frame.
    """
    ratios = []
    surfaces = body_surfaces(model, points_camera, person, camera, observations)
    for observation, (vertices, points) in zip(observations, surfaces, strict=True):
        head = observation.joints_camera[HEAD].astype(np.float64)
        result = align_to_surface(vertices, points, head)
        ratios.append(1.0 + result.shift_m / float(np.linalg.norm(head)) if result.status == SurfaceStatus.OK else 1.0)
    return ratios


def body_surfaces(model: BodyModel, points_camera: NDArray[np.floating], person: NDArray[np.bool_],
                  camera: PinholeCamera, observations: Sequence[Observation],
                  ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.floating]]]:
    """Of each body, (V, 3) vertices that the camera sees and (N, 3) known points of the map that are hers.

    Args: those of `surface_ratios`.
    """
    owner = label_people(person, camera, [o.joints_camera for o in observations])
    kernel = np.ones((2 * ERODE_PX + 1, 2 * ERODE_PX + 1), np.uint8)
    for i, observation in enumerate(observations):
        inside = cv2.erode((owner == i + 1).astype(np.uint8), kernel) > 0
        points = points_camera[inside]
        yield _visible(model, observation, inside, camera), points[np.isfinite(points).all(axis=1)]


def _visible(model: BodyModel, observation: Observation, inside: NDArray[np.bool_],
             camera: PinholeCamera) -> NDArray[np.float32]:
    """(V, 3) vertices of the body that the camera sees, optical frame.

    What lies behind furniture or other people, or at the outline, has no points of its own to meet: only vertices
    `inside` the pixels (h, w) that have.
    """
    mesh = body_mesh(model, LOD)
    coefficients = model.coefficients(observation.betas, observation.expression)
    rest = rest_joints(model, observation.betas, observation.expression)
    shaped = mesh.template + (mesh.directions @ coefficients).reshape(-1, 3)
    transl = observation.joints_camera[PELVIS] - rest[PELVIS]
    vertices, _ = skin(mesh, observation.rotations, rest, shaped, transl)
    vertices = vertices[visible_vertices(vertices, vertex_normals(vertices, mesh.faces), CELLS)]
    columns, rows = np.rint(camera.project(vertices)).astype(int).T
    height, width = inside.shape
    shown = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    shown[shown] = inside[rows[shown], columns[shown]]
    return vertices[shown]
