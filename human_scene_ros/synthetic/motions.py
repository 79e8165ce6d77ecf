"""How synthetic people move: joint angles as smooth functions of time.

A motion is (T, 55, 3) angles (x, y, z) in SMPL-X joint order; the rotation of a joint is Rx(x) Ry(y) Rz(z) in the
T-pose axes of SMPL-X (x left, y up, z forward). Left arm lies along +x and the right one along -x, so arms come
down with z = -1.25 / +1.25, swing with x, elbows bend with y = -/+; hips bend with -x, knees with +x.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Angles = NDArray[np.float64]
Times = NDArray[np.float64]

PELVIS, L_HIP, R_HIP, SPINE1, L_KNEE, R_KNEE, SPINE2, L_ANKLE, R_ANKLE, SPINE3 = range(10)
NECK, L_COLLAR, R_COLLAR, HEAD, L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, L_WRIST, R_WRIST = range(12, 22)
JAW = 22
X, Y, Z = 0, 1, 2
_LEFT_FINGERS, _RIGHT_FINGERS = slice(25, 37), slice(40, 52)
_LEFT_THUMB, _RIGHT_THUMB = slice(37, 40), slice(52, 55)


@dataclasses.dataclass(frozen=True)
class Motion:
    """What one person does.

    Args:
        name: Kind of motion.
        angles: Times (T,) in seconds -> (T, 55, 3) angles; the pelvis row is on top of the heading.
        speed: Metres per second along the path.
        turn_rate: Radians per second of heading while standing.
        seat: The person sits and needs something under the pelvis.
        lies: The person lies on its back or belly.
    """

    name: str
    angles: Callable[[Times], Angles]
    speed: float = 0.0
    turn_rate: float = 0.0
    seat: bool = False
    lies: bool = False


def rotation_matrices(angles: Angles) -> NDArray[np.float64]:
    """(..., 3) angles -> (..., 3, 3) Rx(x) Ry(y) Rz(z)."""
    cx, cy, cz = np.moveaxis(np.cos(angles), -1, 0)
    sx, sy, sz = np.moveaxis(np.sin(angles), -1, 0)
    R = np.empty((*angles.shape[:-1], 3, 3))
    R[..., 0, 0], R[..., 0, 1], R[..., 0, 2] = cy * cz, -cy * sz, sy
    R[..., 1, 0], R[..., 1, 1], R[..., 1, 2] = cx * sz + sx * sy * cz, cx * cz - sx * sy * sz, -sx * cy
    R[..., 2, 0], R[..., 2, 1], R[..., 2, 2] = sx * sz - cx * sy * cz, sx * cz + cx * sy * sz, cx * cy
    return R


def _sway(
    rng: np.random.Generator, t: Times, amplitude: float, low_hz: float = 0.1, high_hz: float = 0.5
) -> Times:
    return amplitude * np.sin(2 * np.pi * rng.uniform(low_hz, high_hz) * t + rng.uniform(0, 2 * np.pi))


def _base(rng: np.random.Generator) -> Callable[[Times], Angles]:
    """Idle life of all joints: posture of this person, slow sway, gaze, relaxed hands."""
    posture = np.zeros((55, 3))
    posture[[SPINE1, SPINE2, SPINE3]] = rng.normal(0, 0.06, (3, 3))
    posture[[SPINE1, SPINE2, SPINE3], X] += rng.uniform(-0.02, 0.1)
    posture[NECK] = rng.normal(0, (0.1, 0.2, 0.06))
    posture[HEAD] = rng.normal(0, (0.15, 0.25, 0.08))
    spread = rng.uniform(0.02, 0.15)
    posture[L_HIP, Z], posture[R_HIP, Z] = spread, -spread
    posture[L_HIP, Y], posture[R_HIP, Y] = rng.uniform(0, 0.3, 2) * (1, -1)
    posture[L_COLLAR, Z], posture[R_COLLAR, Z] = -rng.uniform(0, 0.1), rng.uniform(0, 0.1)
    for fingers, thumb, sign in ((_LEFT_FINGERS, _LEFT_THUMB, -1), (_RIGHT_FINGERS, _RIGHT_THUMB, 1)):
        curl = rng.uniform(0.05, 0.9) * rng.uniform(0.8, 1.2, 12)
        posture[fingers, Z] = sign * curl
        posture[thumb, Y] = sign * rng.uniform(0.0, 0.5, 3)
    sway_hz = rng.uniform(0.1, 0.5, (55, 3))
    sway_phase = rng.uniform(0, 2 * np.pi, (55, 3))
    sway = np.zeros((55, 3))
    sway[[SPINE1, SPINE2, SPINE3]] = 0.03
    sway[[NECK, HEAD]] = (0.06, 0.15, 0.04)
    sway[[L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW]] = 0.05
    sway[[L_WRIST, R_WRIST]] = 0.1
    sway[[L_HIP, R_HIP, L_KNEE, R_KNEE]] = 0.015

    def angles(t: Times) -> Angles:
        return posture + sway * np.sin(2 * np.pi * sway_hz * t[:, None, None] + sway_phase)

    return angles


def _arms_down(rng: np.random.Generator, a: Angles) -> None:
    """Hanging arms, one of a few styles."""
    down = rng.uniform(1.1, 1.38)
    a[:, L_SHOULDER, Z] += -down
    a[:, R_SHOULDER, Z] += down
    bend = rng.uniform(0.05, 0.5)
    a[:, L_ELBOW, Y] += -bend
    a[:, R_ELBOW, Y] += bend


def _arm_style(rng: np.random.Generator, a: Angles) -> None:
    """What idle arms do: hang, on the hips, crossed in front, phone at the ear, reading, behind the back."""
    style = rng.choice(
        ["hang", "hips", "front", "ear", "read", "one", "overhead"],
        p=[0.5, 0.08, 0.12, 0.08, 0.1, 0.07, 0.05],
    )
    if style in ("hang", "one"):
        _arms_down(rng, a)
        if style == "one":  # one forearm lifted
            side = rng.integers(2)
            a[:, (L_ELBOW, R_ELBOW)[side], Y] += (-1, 1)[side] * rng.uniform(0.6, 1.8)
    elif style == "hips":
        for shoulder, elbow, s in ((L_SHOULDER, L_ELBOW, 1), (R_SHOULDER, R_ELBOW, -1)):
            a[:, shoulder, Z] += -s * 0.85
            a[:, shoulder, X] += 0.45
            a[:, elbow, Y] += -s * 1.7
    elif style in ("front", "read"):
        bend, inward = (1.75, 0.55) if style == "front" else (1.6, 0.25)
        for shoulder, elbow, s in ((L_SHOULDER, L_ELBOW, 1), (R_SHOULDER, R_ELBOW, -1)):
            a[:, shoulder, Z] += -s * rng.uniform(1.1, 1.3)
            a[:, shoulder, X] += -rng.uniform(0.2, 0.7)
            a[:, shoulder, Y] += -s * inward
            a[:, elbow, Y] += -s * (bend + rng.uniform(-0.2, 0.2))
        a[:, HEAD, X] += 0.25 if style == "read" else 0.0
    elif style == "ear":
        _arms_down(rng, a)
        side = rng.integers(2)
        shoulder, elbow, s = ((L_SHOULDER, L_ELBOW, 1), (R_SHOULDER, R_ELBOW, -1))[side]
        a[:, shoulder, X] += -0.5
        a[:, elbow, Y] += -s * 2.1
    else:
        for shoulder, elbow, s in ((L_SHOULDER, L_ELBOW, 1), (R_SHOULDER, R_ELBOW, -1)):
            a[:, shoulder, Z] += s * rng.uniform(0.3, 1.2)
            a[:, elbow, Y] += -s * rng.uniform(0.1, 1.4)


def _legs(a: Angles, side: int, hip: Times | float, knee: Times | float, foot: Times | float = 0.0) -> None:
    a[:, (L_HIP, R_HIP)[side], X] += -hip
    a[:, (L_KNEE, R_KNEE)[side], X] += knee
    a[:, (L_ANKLE, R_ANKLE)[side], X] += foot


def walk(rng: np.random.Generator) -> Motion:
    """Gait: hips in antiphase, the knee bends while its leg swings forward, arms against the legs."""
    speed = float(rng.uniform(0.5, 1.7))
    cadence = 0.55 + 0.3 * speed  # strides (two steps) per second
    phase, swing = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.7)
    hip = min(0.25 + 0.22 * speed, 0.6)
    knee = rng.uniform(0.7, 1.05)
    base = _base(rng)
    lean, bend, carry = rng.uniform(0.0, 0.08), rng.uniform(0.1, 0.6), rng.random() < 0.2
    style = np.random.default_rng(rng.integers(2**32))
    fixed = np.zeros((1, 55, 3))
    (_arm_style if carry else _arms_down)(style, fixed)

    def angles(t: Times) -> Angles:
        a = base(t) + fixed
        for side, offset in ((0, 0.0), (1, np.pi)):
            p = 2 * np.pi * cadence * t + phase + offset
            h = 0.08 + hip * np.sin(p)
            k = 0.08 + knee * np.clip(np.cos(p + 0.35), 0, None) ** 1.5
            _legs(a, side, h, k, h - k + 0.25 * np.clip(np.sin(p - 2.4), 0, None))
            s = (1, -1)[side]
            if not carry:
                a[:, (L_SHOULDER, R_SHOULDER)[side], X] += swing * np.sin(p)
                a[:, (L_ELBOW, R_ELBOW)[side], Y] += -s * bend * (0.5 - 0.5 * np.sin(p))
        p = 2 * np.pi * cadence * t + phase
        a[:, SPINE1, X] += lean
        a[:, PELVIS, Y] += -0.08 * np.sin(p)
        a[:, SPINE3, Y] += 0.12 * np.sin(p)
        a[:, PELVIS, Z] += 0.03 * np.cos(p)
        return a

    return Motion("walk", angles, speed=speed)


def stand(rng: np.random.Generator) -> Motion:
    """Standing with idle arms, one leg a little relaxed."""
    base, fixed = _base(rng), np.zeros((1, 55, 3))
    _arm_style(rng, fixed)
    relaxed, bend = int(rng.integers(2)), float(rng.uniform(0, 0.35))
    _legs(fixed, relaxed, 0.6 * bend, bend, -0.4 * bend)
    return Motion("stand", lambda t: base(t) + fixed)


def turn(rng: np.random.Generator) -> Motion:
    """Standing and turning on the spot with small steps."""
    base, fixed = _base(rng), np.zeros((1, 55, 3))
    _arm_style(rng, fixed)
    rate = float(rng.uniform(0.4, 1.6) * rng.choice([-1, 1]))

    def angles(t: Times) -> Angles:
        a = base(t) + fixed
        for side in (0, 1):
            lift = 0.3 * np.clip(np.sin(2 * np.pi * 1.2 * t + side * np.pi), 0, None)
            _legs(a, side, lift, 1.6 * lift, -0.6 * lift)
        return a

    return Motion("turn", angles, turn_rate=rate)


def sit(rng: np.random.Generator) -> Motion:
    """On a seat; arms in the lap, on a table or idle, trunk leaning either way."""
    base, fixed = _base(rng), np.zeros((1, 55, 3))
    for side in (0, 1):
        hip, knee = rng.uniform(1.3, 1.6), rng.uniform(1.1, 1.6)
        _legs(fixed, side, hip, knee, 0.0)
        fixed[:, (L_HIP, R_HIP)[side], Z] += (1, -1)[side] * rng.uniform(0, 0.25)
    fixed[:, SPINE1, X] += rng.uniform(-0.15, 0.45)
    if rng.random() < 0.7:
        for shoulder, elbow, s in ((L_SHOULDER, L_ELBOW, 1), (R_SHOULDER, R_ELBOW, -1)):
            fixed[:, shoulder, Z] += -s * rng.uniform(1.0, 1.3)
            fixed[:, shoulder, X] += -rng.uniform(0.2, 0.7)
            fixed[:, elbow, Y] += -s * rng.uniform(0.5, 1.5)
            fixed[:, shoulder, Y] += -s * rng.uniform(0.0, 0.4)
    else:
        _arm_style(rng, fixed)
    return Motion("sit", lambda t: base(t) + fixed, seat=True)


def reach(rng: np.random.Generator) -> Motion:
    """One or both arms go out towards something and come back."""
    base, fixed, goal = _base(rng), np.zeros((1, 55, 3)), np.zeros((1, 55, 3))
    _arms_down(rng, fixed)
    for side in ((0,), (1,), (0, 1))[rng.integers(3)]:
        shoulder, elbow, s = ((L_SHOULDER, L_ELBOW, 1), (R_SHOULDER, R_ELBOW, -1))[side]
        goal[:, shoulder, X] += -rng.uniform(0.6, 2.6)
        goal[:, shoulder, Y] += s * rng.uniform(-0.5, 0.4)
        goal[:, elbow, Y] += -s * rng.uniform(-0.2, 0.6)
    goal[:, SPINE1, X] += rng.uniform(0, 0.4)
    hz, phase = rng.uniform(0.15, 0.4), rng.uniform(0, 2 * np.pi)

    def angles(t: Times) -> Angles:
        s = 0.5 - 0.5 * np.cos(2 * np.pi * hz * t + phase)
        return base(t) + fixed + goal * s[:, None, None]

    return Motion("reach", angles)


def wave(rng: np.random.Generator) -> Motion:
    """A raised hand waves."""
    base, fixed = _base(rng), np.zeros((1, 55, 3))
    _arms_down(rng, fixed)
    side = int(rng.integers(2))
    shoulder, elbow, s = ((L_SHOULDER, L_ELBOW, 1), (R_SHOULDER, R_ELBOW, -1))[side]
    fixed[:, shoulder] = (-rng.uniform(0.1, 0.5), 0.0, s * rng.uniform(-0.3, 0.5))
    fixed[:, elbow] = (0.0, 0.0, s * rng.uniform(0.9, 1.5))
    hz = rng.uniform(0.8, 2.0)

    def angles(t: Times) -> Angles:
        a = base(t) + fixed
        a[:, elbow, Z] += s * 0.35 * np.sin(2 * np.pi * hz * t)
        return a

    return Motion("wave", angles)


def bend(rng: np.random.Generator) -> Motion:
    """Bending down to the floor or a table, knees straight or in a squat, and up again."""
    base, fixed, goal = _base(rng), np.zeros((1, 55, 3)), np.zeros((1, 55, 3))
    _arms_down(rng, fixed)
    squat = rng.uniform(0, 1) if rng.random() < 0.6 else 0.0
    for side in (0, 1):
        _legs(goal, side, rng.uniform(0.3, 0.7) + 1.4 * squat, 2.0 * squat, -0.5 * squat)
    for joint in (SPINE1, SPINE2, SPINE3):
        goal[:, joint, X] += rng.uniform(0.1, 0.4)
    goal[:, PELVIS, X] += rng.uniform(0.1, 0.5)
    goal[:, [L_SHOULDER, R_SHOULDER], X] += -rng.uniform(0.3, 1.3)
    hz, phase = rng.uniform(0.1, 0.3), rng.uniform(0, 2 * np.pi)

    def angles(t: Times) -> Angles:
        s = 0.6 - 0.4 * np.cos(2 * np.pi * hz * t + phase)
        return base(t) + fixed + goal * s[:, None, None]

    return Motion("bend", angles)


def carry(rng: np.random.Generator) -> Motion:
    """Both forearms forward, as with a box; walks slowly or stands."""
    walking = walk(rng) if rng.random() < 0.6 else stand(rng)

    def angles(t: Times) -> Angles:
        a = walking.angles(t)
        for shoulder, elbow, s in ((L_SHOULDER, L_ELBOW, 1), (R_SHOULDER, R_ELBOW, -1)):
            a[:, shoulder] = (-0.25, -s * 0.1, -s * 1.25)
            a[:, elbow] = (0.0, -s * 1.35, 0.0)
        return a

    return Motion("carry", angles, speed=0.7 * walking.speed)


def lie(rng: np.random.Generator) -> Motion:
    """Lying on the back, on a side or on the belly."""
    base, fixed = _base(rng), np.zeros((1, 55, 3))
    _arm_style(rng, fixed)
    for side in (0, 1):
        b = rng.uniform(0, 0.9)
        _legs(fixed, side, b, 1.5 * b, 0.3)
    fixed[:, PELVIS, Y] = rng.choice([0.0, np.pi, np.pi / 2, -np.pi / 2]) + rng.normal(0, 0.1)
    fixed[:, PELVIS, X] = 0.0
    return Motion("lie", lambda t: base(t) + fixed, lies=True)


def _random_limbs(rng: np.random.Generator) -> Angles:
    """(1, 55, 3): one pose with limbs anywhere within rough joint limits."""
    a = np.zeros((1, 55, 3))
    for side, s in ((0, 1), (1, -1)):
        a[:, (L_SHOULDER, R_SHOULDER)[side]] = (
            rng.uniform(-2.4, 0.7),
            s * rng.uniform(-0.9, 0.6),
            s * rng.uniform(-1.35, 0.9),
        )
        a[:, (L_ELBOW, R_ELBOW)[side]] = (rng.uniform(-0.8, 0.8), -s * rng.uniform(0, 2.3), 0.0)
        a[:, (L_WRIST, R_WRIST)[side]] = rng.uniform(-0.5, 0.5, 3)
        hip = rng.uniform(-0.3, 0.6) if rng.random() < 0.7 else rng.uniform(0.3, 1.7)
        a[:, (L_HIP, R_HIP)[side]] = (-hip, s * rng.uniform(-0.2, 0.5), s * rng.uniform(-0.1, 0.5))
        a[:, (L_KNEE, R_KNEE)[side]] = (
            rng.uniform(0, 0.5) if rng.random() < 0.7 else rng.uniform(0.3, 2.0),
            0,
            0,
        )
    a[:, [SPINE1, SPINE2, SPINE3]] = rng.normal(0, (0.12, 0.12, 0.08), (3, 3))
    a[:, PELVIS] = rng.normal(0, (0.12, 0.0, 0.08), 3)
    a[:, [NECK, HEAD]] = rng.normal(0, (0.15, 0.3, 0.1), (2, 3))
    return a


def free(rng: np.random.Generator) -> Motion:
    """Between two random poses (dance, exercise, gestures): variety rather than realism."""
    base, first, second = _base(rng), _random_limbs(rng), _random_limbs(rng)
    second = first + rng.uniform(0.3, 1.0) * (second - first)
    hz, phase = rng.uniform(0.1, 0.5), rng.uniform(0, 2 * np.pi)
    rate = float(rng.normal(0, 0.5)) if rng.random() < 0.4 else 0.0

    def angles(t: Times) -> Angles:
        s = (0.5 - 0.5 * np.cos(2 * np.pi * hz * t + phase))[:, None, None]
        return base(t) + first * (1 - s) + second * s

    return Motion("free", angles, turn_rate=rate)


_KINDS: tuple[tuple[Callable[[np.random.Generator], Motion], float], ...] = (
    (walk, 0.26),
    (stand, 0.13),
    (turn, 0.05),
    (sit, 0.12),
    (reach, 0.06),
    (wave, 0.05),
    (bend, 0.05),
    (carry, 0.04),
    (lie, 0.01),
    (free, 0.23),
)


def sample(rng: np.random.Generator, free_fraction: float | None = None) -> Motion:
    """A random motion; `free_fraction` of the people get random limb poses (default 0.23).

    Arms and head of most other motions get a random offset too, so that no limb is tied to its kind.
    """
    weights = np.array([w for _, w in _KINDS])
    if free_fraction is not None:
        weights[:-1] *= (1 - free_fraction) / weights[:-1].sum()
        weights[-1] = free_fraction
    motion = _KINDS[rng.choice(len(_KINDS), p=weights / weights.sum())][0](rng)
    if motion.name != "free" and rng.random() < 0.35:
        offset = np.zeros((1, 55, 3))
        offset[:, [L_SHOULDER, R_SHOULDER, L_ELBOW, R_ELBOW, HEAD]] = rng.normal(0, 0.25, (5, 3))
        inner = motion.angles
        return dataclasses.replace(motion, angles=lambda t: inner(t) + offset)
    return motion
