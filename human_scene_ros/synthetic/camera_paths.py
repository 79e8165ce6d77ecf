"""How the camera of a synthetic world is placed and moves: tripod, hand, robot, pan, orbit."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
KINDS = ("static", "handheld", "robot", "pan", "orbit")


@dataclasses.dataclass(frozen=True)
class CameraPath:
    """Camera motion sampled at the frames of a world.

    Args:
        kind: One of `KINDS`.
        T_world_camera: (T, 4, 4).
    """

    kind: str
    T_world_camera: NDArray[np.float64]


def look_rotation(
    yaw: NDArray[np.floating], pitch: NDArray[np.floating], roll: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(T,) angles -> (T, 3, 3) rot_world_camera; yaw 0 looks along x, pitch > 0 looks up, roll > 0 turns clockwise."""
    cy, sy, cp, sp, cr, sr = (
        np.cos(yaw),
        np.sin(yaw),
        np.cos(pitch),
        np.sin(pitch),
        np.cos(roll),
        np.sin(roll),
    )
    forward = np.stack([cy * cp, sy * cp, sp], -1)
    right = np.stack([sy, -cy, 0 * cy], -1)
    down = np.cross(forward, right)
    return np.stack(
        [right * cr[:, None] + down * sr[:, None], down * cr[:, None] - right * sr[:, None], forward], -1
    )


def plan(
    rng: Rng,
    times: NDArray[np.float64],
    fov: tuple[float, float],
    half: NDArray[np.float64],
    ceiling: float,
    outdoor: bool,
    people: NDArray[np.float64],
    aim_height: NDArray[np.float64],
    kind: str | None = None,
    min_distance: float = 0.75,
    distance: tuple[float, float] | None = None,
) -> CameraPath:
    """Choose a view that usually has people in it, and move it without touching them or the walls.

    Args:
        rng: Source of randomness.
        times: (T,) seconds.
        fov: Horizontal and vertical field of view, radians.
        half: (2,) half extents of the floor.
        ceiling: Height of the ceiling.
        outdoor: The camera may leave the floor area.
        people: (P, T, 2) positions of people.
        aim_height: (P,) height that a camera would aim at.
        kind: One of `KINDS`; None draws one.
        min_distance: Smallest distance between the camera and a person's axis.
        distance: Range of distances to the person aimed at; None draws from close-up to far.
    """
    kind = kind or str(rng.choice(KINDS, p=[0.18, 0.3, 0.24, 0.14, 0.14]))
    limit = half + 3.0 if outdoor else np.maximum(half - 0.35, 0.15)
    target = int(rng.integers(len(people))) if len(people) else -1
    start, aim = _viewpoint(rng, limit, people, target, min_distance, distance)
    height = {"robot": rng.uniform(0.3, 1.4), "handheld": rng.uniform(1.1, 1.8)}.get(
        kind, rng.uniform(0.5, 2.3)
    )
    height = min(height, ceiling - 0.3)
    aim_z = aim_height[target] if target >= 0 else rng.uniform(0.3, 1.5)
    away = max(float(np.hypot(*(aim - start))), 0.3)
    pitch = np.arctan2(aim_z + rng.normal(0, 0.15) - height, away) + rng.normal(0, 0.09 * fov[1])
    if rng.random() < 0.3:  # mounted level or nearly so, whatever stands in front
        pitch = pitch * 0.2 + rng.normal(0, 0.04)
    pitch = float(np.clip(pitch, -1.2, 0.5))
    yaw = float(np.arctan2(*(aim - start)[::-1]) + rng.normal(0, 0.15 * fov[0]))
    if rng.random() < 0.06:
        yaw += rng.uniform(-np.pi, np.pi)
    roll = float(rng.normal(0, 0.02) if rng.random() < 0.85 else rng.normal(0, 0.2))
    positions, yaws, pitches, rolls = _moves(
        rng, kind, times, start, height, yaw, pitch, roll, aim, people, target
    )
    for _ in range(6):  # smaller and smaller moves until they fit
        inside = (np.abs(positions[:, :2]) <= limit).all()
        near = len(people) and (np.linalg.norm(people - positions[None, :, :2], axis=-1) < min_distance).any()
        if inside and not near:
            break
        positions[:, :2] = start + 0.5 * (positions[:, :2] - start)
        if kind == "orbit":
            yaws, pitches = yaw + 0.5 * (yaws - yaw), pitch + 0.5 * (pitches - pitch)
    else:
        positions[:, :2] = start
    positions[:, 2] = np.clip(positions[:, 2], 0.15, ceiling - 0.15)
    T_world_camera = np.tile(np.eye(4), (len(times), 1, 1))
    T_world_camera[:, :3, :3] = look_rotation(yaws, pitches, rolls)
    T_world_camera[:, :3, 3] = positions
    return CameraPath(kind, T_world_camera)


def _viewpoint(
    rng: Rng,
    limit: NDArray[np.float64],
    people: NDArray[np.float64],
    target: int,
    min_distance: float,
    distance: tuple[float, float] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if target < 0:
        start = rng.uniform(-1, 1, 2) * limit
        aim = rng.uniform(-1, 1, 2) * limit * 0.6
        return start, aim if np.hypot(*(aim - start)) > 0.3 else -start
    aim = people[target].mean(0)
    best, best_clearance = np.zeros(2), -1.0
    for attempt in range(40):
        if attempt < 30:
            if distance is not None:
                d = rng.uniform(*distance)
            else:
                d = (
                    rng.uniform(0.85, 1.6)
                    if rng.random() < 0.14
                    else np.exp(rng.uniform(np.log(1.5), np.log(7.0)))
                )
            bearing = rng.uniform(0, 2 * np.pi)
            candidate = aim + d * np.array([np.cos(bearing), np.sin(bearing)])
        else:
            candidate = rng.uniform(-1, 1, 2) * limit
        if (np.abs(candidate) > limit).any():
            continue
        clearance = float(np.linalg.norm(people - candidate, axis=-1).min())
        if clearance > best_clearance:
            best, best_clearance = candidate, clearance
        if clearance >= min_distance + 0.05:
            return candidate, aim
    return best, aim


def _moves(
    rng: Rng,
    kind: str,
    t: NDArray[np.float64],
    start: NDArray[np.float64],
    height: float,
    yaw: float,
    pitch: float,
    roll: float,
    aim: NDArray[np.float64],
    people: NDArray[np.float64],
    target: int,
) -> tuple[NDArray[np.float64], ...]:
    def sines(amplitude: float, low_hz: float, high_hz: float) -> NDArray[np.float64]:
        total = np.zeros_like(t)
        for _ in range(2):
            hz, phase = rng.uniform(low_hz, high_hz), rng.uniform(0, 2 * np.pi)
            total += amplitude * rng.uniform(0.3, 1) * (np.sin(2 * np.pi * hz * t + phase) - np.sin(phase))
        return total

    positions = np.tile([start[0], start[1], height], (len(t), 1)).astype(np.float64)
    yaws, pitches, rolls = np.full(len(t), yaw), np.full(len(t), pitch), np.full(len(t), roll)
    if kind == "handheld":
        shake = rng.uniform(0.3, 1.0)
        walk, direction = rng.uniform(0, 0.7) * (rng.random() < 0.7), rng.uniform(0, 2 * np.pi)
        stride = walk / (2 * np.pi * 0.08) * (np.sin(2 * np.pi * 0.08 * t))
        positions[:, 0] += stride * np.cos(direction) + sines(0.04 * shake, 0.2, 0.9)
        positions[:, 1] += stride * np.sin(direction) + sines(0.04 * shake, 0.2, 0.9)
        positions[:, 2] += sines(0.03 * shake, 0.3, 1.8)
        yaws, pitches, rolls = (
            yaws + sines(0.05 * shake, 0.1, 0.7),
            pitches + sines(0.04 * shake, 0.1, 0.8),
            rolls + sines(0.02 * shake, 0.1, 0.8),
        )
        if target >= 0 and rng.random() < 0.5:  # follows a person
            bearing = np.unwrap(
                np.arctan2(people[target, :, 1] - positions[:, 1], people[target, :, 0] - positions[:, 0])
            )
            yaws = yaws + 0.8 * (bearing - bearing[0])
    elif kind == "robot":
        speed, rate = rng.uniform(-0.3, 0.9), rng.normal(0, 0.25)
        if rng.random() < 0.2:
            speed = 0.0
        # Drives forth and back, turns left and right: bounded for any length.
        travel = speed / (2 * np.pi * 0.07) * np.sin(2 * np.pi * 0.07 * t)
        turn = rate / (2 * np.pi * 0.06) * np.sin(2 * np.pi * 0.06 * t)
        heading = yaw + (rng.normal(0, 0.3) if rng.random() < 0.5 else 0.0) + 0.5 * turn
        positions[:, 0] += travel * np.cos(heading)
        positions[:, 1] += travel * np.sin(heading)
        yaws = yaws + turn
        pitches = pitches + sines(0.004, 1.0, 4.0)
    elif kind == "pan":
        yaws = yaws + rng.uniform(0.15, 0.6) * np.sin(
            2 * np.pi * rng.uniform(0.05, 0.2) * t + rng.uniform(0, 6)
        )
        pitches = pitches + sines(0.03, 0.05, 0.2)
    elif kind == "orbit":
        radius = start - aim
        angle = rng.uniform(0.3, 1.2) * np.sin(2 * np.pi * rng.uniform(0.03, 0.1) * t)
        c, s = np.cos(angle), np.sin(angle)
        positions[:, 0] = aim[0] + c * radius[0] - s * radius[1]
        positions[:, 1] = aim[1] + s * radius[0] + c * radius[1]
        positions[:, 2] += sines(0.05, 0.1, 0.5)
        yaws = yaws + angle
    return positions, yaws, pitches, rolls
