"""Whether a fused person exists: the views that see somebody there against those that should and do not.

A detector's ghost, furniture or a wrong pairing of two views, is seen by one view or two and denied by the others;
somebody whom only one view can see is denied by nobody. Evidence is a logarithm of odds, added up over time (as the
existence probability of integrated probabilistic data association; Musicki, Evans and Stankovic 1994).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

LEAST_EVIDENCE, MOST_EVIDENCE = -3.0, 5.0
_PER_SCORE, _WORTHLESS_SCORE = 4.0, 0.25
_BORDER = 0.05  # of the image: somebody there is half outside
_NEAREST_M = 0.3
_BESIDE_M = 0.25
IN_FRONT_M = 0.15
"""Somebody nearer to a camera by so much hides another on the same ray."""


def evidence_of_scores(score: NDArray[np.floating]) -> Array:
    """What detections say for a person: `nano` is right about 1 of 2 with score 0.4, and 99 of 100 with 0.75."""
    return _PER_SCORE * (np.asarray(score, np.float64) - _WORTHLESS_SCORE)


def gain_of_moving(moved: float, kept: float, denials: int, lacking: bool, in_front: bool, miss: float) -> float:
    """By how much it is likelier that a detection of somebody whom two views see is another person's, on the same ray.

    Who is denied by more than affirms does not exist, and then nothing is lost by taking a detection away.

    Args:
        moved: Evidence of the detection.
        kept: Evidence of the other view's detection, which stays.
        denials: Number of views that should see its person and do not.
        lacking: The view should see the other person too, and has no detection of it.
        in_front: Its person is not hidden by the other: without the detection the view denies it too.
        miss: Evidence of one denial.

    Returns:
        The difference of the logarithms of the odds.
    """
    before = max(moved + kept - miss * denials, 0.0)
    after = max(kept - miss * (denials + in_front), 0.0)
    return moved + miss * lacking - (before - after)


def inner_bounds(size_px: Array) -> tuple[Array, Array]:
    """(V, 2) image sizes, infinite where unknown -> (V, 2) least and greatest pixels well inside the images."""
    known = np.isfinite(size_px)
    border = _BORDER * np.where(known, size_px, 0.0)
    return np.where(known, border, -np.inf), size_px - border


def should_be_seen(heads_world: NDArray[np.floating], seen: Flags, rot_world_camera: Array, centres: Array,
                   focal_px: Array, principal_px: Array, inner_px: tuple[Array, Array]) -> Flags:
    """(P, V) whether a head lies well inside a view's image and behind nobody whom that view sees.

    Args:
        heads_world: (P, 3) metres.
        seen: (P, V) who is seen by which view.
        rot_world_camera: (V, 3, 3).
        centres: (V, 3) of the cameras, world.
        focal_px: (V,).
        principal_px: (V, 2).
        inner_px: (V, 2) each, of `inner_bounds`.
    """
    ray = heads_world - centres[:, None]
    local = ray @ rot_world_camera  # (V, P, 3)
    ahead = local[..., 2] > _NEAREST_M
    uv = local[..., :2] * (focal_px[:, None] / np.where(ahead, local[..., 2], 1.0))[..., None] + principal_px[:, None]
    low, high = inner_px
    inside = ahead & ((uv > low[:, None]) & (uv < high[:, None])).all(axis=2)
    square = (ray * ray).sum(axis=2)
    length = np.sqrt(square)
    along = (ray / np.maximum(length, 1e-9)[..., None]) @ ray.transpose(0, 2, 1)  # (V, P, P), of the second
    beside_square = square[:, None] - along * along
    nearer = (along > _NEAREST_M) & (along < length[..., None] - IN_FRONT_M)
    hides = nearer & (beside_square < _BESIDE_M**2) & seen.T[:, None]
    return np.asarray(inside & ~hides.any(axis=2)).T
