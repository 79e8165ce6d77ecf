"""Semantic points: which points of a scene lie on whom, and where on the body.

After HAMSt3R (arXiv 2508.16433): every point says whether it is human, which person it is, and its place on the body
at rest, a continuous dense correspondence. Here all three come from posed bodies: a point takes them from the nearest
vertex.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from human_scene_ros.body.model import BodyModel, body_mesh, vertices_of_people
from human_scene_ros.body.parameters import BodyParameters

Array = NDArray[np.float64]
Index = NDArray[np.int64]

BODY_RADIUS_M = 0.10
SILHOUETTE_RADIUS_M = 0.25  # clothes, hair and what is carried
BETWEEN_RATIO = 1.2  # a second person who is not so much farther makes a point doubtful
LOD, VERTEX_STEP = 1, 4


@dataclasses.dataclass(frozen=True)
class SemanticPoints:
    """Which points of a cloud belong to whom, and where on the body they lie.

    Args:
        person: (N,) index of the person, -1 = nobody.
        vertex: (N,) nearest vertex, -1 = nobody's.
        distance_m: (N,) to the nearest vertex of anybody; inf where nobody is near.
        canonical: (N, 3) place on the template in [0, 1]; 0 = nobody's.
        confidence: (N,) 1, or 0.5 between two people, 0 for nobody's.
    """

    person: Index
    vertex: Index
    distance_m: Array
    canonical: Array
    confidence: Array


def label_points(points: NDArray[np.floating], vertices: NDArray[np.floating], places: NDArray[np.floating], *,
                 radius_m: float = BODY_RADIUS_M, silhouette: NDArray[np.bool_] | None = None) -> SemanticPoints:
    """Give each point to the nearest posed vertex of all people, if it is near enough.

    Args:
        points: (N, 3) scene points; NaN belongs to nobody.
        vertices: (P, V, 3) posed, the same frame; of people at one distance the first wins.
        places: (V, 3) of the vertices on the template, see `template_places`.
        radius_m: Largest distance of a point on a body.
        silhouette: (N,) points inside the image's person mask, which may be `SILHOUETTE_RADIUS_M` away; None = none.
    """
    points, vertices = np.asarray(points, np.float64).reshape(-1, 3), np.asarray(vertices, np.float64)
    n, people = len(points), len(vertices)
    inside = np.zeros(n, bool) if silhouette is None else np.asarray(silhouette, bool)
    limit = np.where(inside, max(radius_m, SILHOUETTE_RADIUS_M), radius_m)
    distance = np.full((max(people, 1), n), np.inf)
    nearest = np.zeros((max(people, 1), n), np.int64)
    known = np.isfinite(points @ np.ones(3))
    groups = [(np.flatnonzero(known & of), BETWEEN_RATIO * float(limit[of][0])) for of in (inside, ~inside) if of.any()]
    for p in range(people):
        good = np.flatnonzero(np.isfinite(vertices[p] @ np.ones(3)))
        if not len(good):
            continue
        tree = cKDTree(vertices[p, good], balanced_tree=False, compact_nodes=False)  # built faster than it is asked
        for group, reach in groups:
            # A point outside the inflated box of a person cannot be hers; the tree is asked about the rest only.
            near = group
            for axis in range(3):
                along = points[near, axis]
                near = near[(along >= tree.mins[axis] - reach) & (along <= tree.maxes[axis] + reach)]
            d, i = tree.query(points[near], distance_upper_bound=reach)
            found = np.isfinite(d)
            distance[p, near[found]], nearest[p, near[found]] = d[found], good[i[found]]
    person = distance.argmin(axis=0)  # the first of equals
    every = np.arange(n)
    best, vertex = distance[person, every], nearest[person, every]
    human = best < limit
    canonical = np.where(human[:, None], np.asarray(places, np.float64)[vertex], 0.0)
    confidence = human.astype(np.float64)
    distance[person, every] = np.inf
    confidence[human & (distance.min(axis=0) < BETWEEN_RATIO * best)] = 0.5  # by whoever is nearest but one
    return SemanticPoints(np.where(human, person, -1), np.where(human, vertex, -1), best, canonical, confidence)


def template_places(template: NDArray[np.floating]) -> Array:
    """(V, 3) vertices at rest -> their places in the template's box, each axis from 0 to 1."""
    template = np.asarray(template, np.float64)
    low = template.min(axis=0)
    return (template - low) / np.maximum(template.max(axis=0) - low, 1e-12)


def sampled_people(model: BodyModel, people: Sequence[BodyParameters]) -> tuple[NDArray[np.float32], Array]:
    """Posed vertices of P people, thinned to one in four or fewer: surfaces are much smoother than that.

    Returns:
        vertices: (P, V', 3) in the frame of the parameters.
        places: (V', 3) of them on the template.
    """
    places, step = _sample(model)
    return vertices_of_people(model, people, LOD)[0][:, ::step], places


@functools.lru_cache(maxsize=2)
def _sample(model: BodyModel) -> tuple[Array, int]:
    index = body_mesh(model, LOD).vertex_index
    # A file without levels of detail is thinned here, one that has them is coarse enough already.
    step = VERTEX_STEP if len(index) == len(model.v_template) else 1
    return template_places(model.v_template)[index[::step]], step
