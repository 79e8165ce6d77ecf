"""Checks that arrays are what their names promise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ShapeError


def check_shape(name: str, array: Any, shape: tuple[int | None, ...]) -> None:
    """Raise `ShapeError` unless `array.shape` equals `shape`; None matches any length."""
    got = tuple(array.shape)
    if got == shape:  # every body of every frame is checked ten times
        return
    if len(got) != len(shape) or any(e is not None and e != g for g, e in zip(got, shape, strict=True)):
        expected = "(" + ", ".join("any" if e is None else str(e) for e in shape) + ")"
        raise ShapeError(f"{name} has shape {got}; expected {expected}")


def check_finite(name: str, array: Any) -> None:
    """Raise `ShapeError` if `array` holds NaN or infinity."""
    bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise ShapeError(f"{name} holds {bad} value(s) that are NaN or infinite; expected finite numbers")


def weighted_median(values: NDArray[np.floating], weights: NDArray[np.floating]) -> float:
    """Of (n,) values, at least one: the usual median for equal weights, else the mean of the lower and upper one."""
    order = np.argsort(values)
    values, cumulative = values[order], np.cumsum(weights[order])
    half = 0.5 * cumulative[-1]
    lower = values[int(np.searchsorted(cumulative, half * (1.0 - 1e-12)))]
    upper = values[min(int(np.searchsorted(cumulative, half * (1.0 + 1e-12), side="right")), len(values) - 1)]
    return float(0.5 * (lower + upper))
