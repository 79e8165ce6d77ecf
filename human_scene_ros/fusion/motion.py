"""Constant-velocity Kalman filters of many points at once, with full 3x3 blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.triangulation import invert_symmetric

Array = NDArray[np.float64]

MAX_SPEED_M_S = 4.0
INITIAL_SPEED_M_S = 1.0


class PointFilters:
    """Position and velocity of N points; rows are added, removed and picked by index arrays.

    Args:
        acceleration: Standard deviation of what the points do unforeseen, m/s^2.
    """

    def __init__(self, acceleration: float = 3.0) -> None:
        self._q = acceleration**2
        self.position = np.zeros((0, 3))
        self.velocity = np.zeros((0, 3))
        self.time = np.zeros(0)
        self._pp = np.zeros((0, 3, 3))
        self._pv = np.zeros((0, 3, 3))
        self._vv = np.zeros((0, 3, 3))

    def add(self, position: NDArray[np.floating], covariance: NDArray[np.floating], time_s: float) -> None:
        """One more point, at rest as far as anybody knows."""
        self.position = np.concatenate([self.position, np.reshape(position, (1, 3))])
        self.velocity = np.concatenate([self.velocity, np.zeros((1, 3))])
        self.time = np.append(self.time, time_s)
        self._pp = np.concatenate([self._pp, np.reshape(covariance, (1, 3, 3))])
        self._pv = np.concatenate([self._pv, np.zeros((1, 3, 3))])
        self._vv = np.concatenate([self._vv, INITIAL_SPEED_M_S**2 * np.eye(3)[None]])

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Remove all other rows."""
        for name in ("position", "velocity", "time", "_pp", "_pv", "_vv"):
            setattr(self, name, getattr(self, name)[rows])

    def predict(self, rows: NDArray[np.integer], time_s: float) -> tuple[Array, Array]:
        """(n, 3) positions and (n, 3, 3) covariances at a time, without changing anything."""
        dt = np.clip(time_s - self.time[rows], -1.0, 1.0)[:, None]
        t = dt[..., None]
        cross = self._pv[rows]
        covariance = (self._pp[rows] + t * (cross + cross.transpose(0, 2, 1)) + t * t * self._vv[rows]
                      + 0.25 * self._q * t**4 * np.eye(3))
        return self.position[rows] + dt * self.velocity[rows], covariance

    def update(self, rows: NDArray[np.integer], time_s: float, measured: NDArray[np.floating],
               covariance: NDArray[np.floating]) -> None:
        """Move the rows to `time_s` and take (n, 3) measurements with (n, 3, 3) covariances in."""
        dt = np.clip(time_s - self.time[rows], 0.0, 1.0)[:, None, None]
        pp, pv, vv = self._pp[rows], self._pv[rows], self._vv[rows]
        noise = self._q * np.eye(3)
        pp = pp + dt * (pv + pv.transpose(0, 2, 1)) + dt * dt * vv + 0.25 * dt**4 * noise
        pv = pv + dt * vv + 0.5 * dt**3 * noise
        vv = vv + dt * dt * noise
        position = self.position[rows] + dt[..., 0] * self.velocity[rows]
        inverse = invert_symmetric(pp + covariance)[0]
        gain_p, gain_v = pp @ inverse, pv.transpose(0, 2, 1) @ inverse
        innovation = (measured - position)[..., None]
        self.position[rows] = position + (gain_p @ innovation)[..., 0]
        velocity = self.velocity[rows] + (gain_v @ innovation)[..., 0]
        speed = np.sqrt((velocity * velocity).sum(axis=1, keepdims=True))
        self.velocity[rows] = velocity * np.minimum(1.0, MAX_SPEED_M_S / np.maximum(speed, 1e-9))
        self.time[rows] = time_s
        updated = pp - gain_p @ pp
        self._pp[rows] = 0.5 * (updated + updated.transpose(0, 2, 1))
        self._pv[rows] = pv - gain_p @ pv
        updated = vv - gain_v @ pv
        self._vv[rows] = 0.5 * (updated + updated.transpose(0, 2, 1))
