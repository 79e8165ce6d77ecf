"""Constant-velocity Kalman filters of many points at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.fusion.matrices import invert_symmetric

Array = NDArray[np.float64]

MAX_SPEED_M_S = 4.0
INITIAL_SPEED_M_S = 1.0

_STAY = np.eye(6)
_DRIFT = np.kron([[0.0, 1.0], [0.0, 0.0]], np.eye(3))  # times the duration: what velocity adds to position
_SAME_AXIS = np.kron(np.ones((2, 2)), np.eye(3))


class PointFilters:
    """Position and velocity of N points; rows are added, removed and picked by index arrays.

    Args:
        acceleration: Standard deviation of what the points do unforeseen, m/s^2.
    """

    def __init__(self, acceleration: float = 3.0) -> None:
        self._noise = acceleration**2 * _SAME_AXIS
        self._state = np.zeros((0, 6))
        self._covariance = np.zeros((0, 6, 6))
        self.time = np.zeros(0)

    @property
    def position(self) -> Array:
        """(N, 3) metres, each at its own `time`."""
        return self._state[:, :3]

    @property
    def velocity(self) -> Array:
        """(N, 3) m/s."""
        return self._state[:, 3:]

    def add(self, position: NDArray[np.floating], covariance: NDArray[np.floating], time_s: float) -> None:
        """One more point, at rest as far as anybody knows."""
        state, spread = np.zeros((1, 6)), INITIAL_SPEED_M_S**2 * np.eye(6)[None]
        state[0, :3], spread[0, :3, :3] = position, covariance
        self._state = np.concatenate([self._state, state])
        self._covariance = np.concatenate([self._covariance, spread])
        self.time = np.append(self.time, time_s)

    def keep(self, rows: NDArray[np.bool_]) -> None:
        """Remove all other rows."""
        self._state, self._covariance, self.time = self._state[rows], self._covariance[rows], self.time[rows]

    def restart(self, rows: NDArray[np.integer]) -> None:
        """Doubt where the points were: the next measurements decide."""
        self._state[rows, 3:] = 0.0
        self._covariance[rows] = INITIAL_SPEED_M_S**2 * np.eye(6)

    def update(self, rows: NDArray[np.integer], time_s: float, measured: NDArray[np.floating],
               covariance: NDArray[np.floating]) -> None:
        """Move the rows to `time_s` and take (n, 3) measurements with (n, 3, 3) covariances in."""
        dt = np.minimum(np.maximum(time_s - self.time[rows], 0.0), 1.0)[:, None]
        state, P = self._state[rows], self._covariance[rows]
        state[:, :3] += dt * state[:, 3:]
        transition = _STAY + dt[..., None] * _DRIFT
        lever = np.concatenate([0.5 * dt * dt, dt], axis=1).repeat(3, axis=1)  # of an acceleration, on the state
        P = transition @ P @ transition.transpose(0, 2, 1) + self._noise * lever[:, :, None] * lever[:, None]
        gain = P[:, :, :3] @ invert_symmetric(P[:, :3, :3] + covariance)[0]
        state += (gain @ (measured - state[:, :3])[..., None])[..., 0]
        P = P - gain @ P[:, :3]
        velocity = state[:, 3:]
        speed = np.sqrt((velocity * velocity).sum(axis=1, keepdims=True))
        velocity *= np.minimum(1.0, MAX_SPEED_M_S / np.maximum(speed, 1e-9))
        self._state[rows] = state
        self._covariance[rows] = 0.5 * (P + P.transpose(0, 2, 1))
        self.time[rows] = time_s
