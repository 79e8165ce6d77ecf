"""Who is who over time in one camera: bodies of a frame in, tracked bodies out.

Association is geometric, in the world, so that the camera may move: each track predicts where its pelvis is and a
gated assignment gives it the nearest body, where "near" forgives more along the viewing ray, because that is where
a single camera is wrong. Networks that re-identify people give each body an identity, which then leads.

A Kalman filter with constant velocity follows each pelvis, with the same anisotropy; a person who is not seen is
predicted by it until `timeout_s`. Smoothing acts where it costs no delay in the picture: distance along the ray (by
the filter), shape (mean over the track), rotations (One-Euro filter, Casiez et al. 2012); the head stays on the
pixel where it was seen.

The state is passed in and returned. Track ids rise and are never given to another person. No ROS, no torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from human_scene_ros.body.model import BodyModel, chain, rest_joints
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.skeleton import HEAD, PELVIS
from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.transform import apply, axis_and_angle, invert, nearest_rotations, rotation_vectors
from human_scene_ros.scene import TrackState

Array = NDArray[np.floating]
FORBIDDEN = 1e6


@dataclasses.dataclass(frozen=True)
class TrackConfig:
    """How bodies become tracks.

    Args:
        max_distance_m: Distance between a track's prediction and the body that continues it, at most; along the
            viewing ray it is forgiven in proportion to `depth_noise` and the distance from the camera.
        timeout_s: A person who has not been seen for so long is lost; until then the body is predicted.
        birth_score: Least score of a body that may begin a track; weaker ones only continue one, because a
            place where somebody was seen just before needs less evidence (arXiv 2110.06864). A track ends when the
            running mean of its scores falls below: what looks a little like a person in every frame is furniture.
        confirm_hits: Bodies until a track is confirmed.
        depth_noise: Relative standard deviation of a body's distance from the camera.
        lateral_noise_m: Standard deviation of a pelvis across the viewing ray.
        acceleration: Standard deviation of what people do, m/s^2.
        max_speed: Speeds above this are not believed, m/s.
        max_identities: Re-identified people remembered.
    """

    max_distance_m: float = 0.7
    timeout_s: float = 1.0
    birth_score: float = 0.0
    confirm_hits: int = 3
    depth_noise: float = 0.12
    lateral_noise_m: float = 0.08
    acceleration: float = 1.0
    max_speed: float = 4.0
    max_identities: int = 1024

    def __post_init__(self) -> None:
        for name, low, high in (("max_distance_m", 0.0, 100.0), ("timeout_s", 0.0, 3600.0), ("confirm_hits", 1, 1000),
                                ("depth_noise", 0.0, 10.0), ("lateral_noise_m", 1e-4, 10.0),
                                ("acceleration", 0.0, 100.0), ("max_speed", 0.0, 100.0),
                                ("max_identities", 0, 100_000)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"track.{name} = {value}: must be in [{low}, {high}]")


@dataclasses.dataclass(frozen=True)
class SmoothingConfig:
    """How much a track's body is smoothed.

    Args:
        min_cutoff_hz: One-Euro cut-off of rotations at rest; 0 switches all smoothing off.
        beta: How much turning speed (rad/s) raises the cut-off.
        shape_samples: Frames over which the shape is averaged.
    """

    min_cutoff_hz: float = 1.0
    beta: float = 0.05
    shape_samples: int = 100

    def __post_init__(self) -> None:
        for name, low, high in (("min_cutoff_hz", 0.0, 1000.0), ("beta", 0.0, 1000.0), ("shape_samples", 1, 100_000)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"smoothing.{name} = {value}: must be in [{low}, {high}]")


@dataclasses.dataclass(frozen=True)
class Observation:
    """One body as the network saw it in one frame.

    Args:
        rotations: (55, 3, 3) of each joint relative to its parent, skinning order; root: SMPL-X axes -> camera.
        betas: (b,).
        expression: (e,).
        joints_camera: (55, 3) metres.
        score: Detection confidence.
        head_uv_px: (2,) in the input image.
        identity: The network's own number of this person, None when it does not re-identify.
    """

    rotations: NDArray[np.float32]
    betas: NDArray[np.float32]
    expression: NDArray[np.float32]
    joints_camera: NDArray[np.float32]
    score: float
    head_uv_px: NDArray[np.float32]
    identity: int | None = None


@dataclasses.dataclass(frozen=True)
class Track:
    """One person over time.

    Args:
        track_id: Never given to another person.
        state: See `TrackState`.
        age: Frames since it began.
        hits: Frames in which it was seen.
        born_ns: Stamp of its first frame.
        seen_ns: Stamp of the last frame in which it was seen.
        stamp_ns: Stamp of `mean`.
        mean: (6,) pelvis position (m) and velocity (m/s), world.
        covariance: (6, 6).
        rotations: (55, 3, 3) of the body when it was last seen, root in the camera frame of then, smoothed.
        betas: (b,) smoothed shape.
        expression: (e,) the same.
        rot_world_camera: (3, 3) of that camera.
        score: Of the last detection.
        mean_score: Running mean of the scores, each new one with weight 1/2.
        head_uv_px: (2,) where the head was last seen.
        shape_weight: Samples in the mean shape.
        identity: The network's number of this person.
    """

    track_id: int
    state: TrackState
    age: int
    hits: int
    born_ns: int
    seen_ns: int
    stamp_ns: int
    mean: Array
    covariance: Array
    rotations: NDArray[np.float32]
    betas: NDArray[np.float32]
    expression: NDArray[np.float32]
    rot_world_camera: Array
    score: float
    mean_score: float
    head_uv_px: NDArray[np.float32]
    shape_weight: float
    identity: int | None


@dataclasses.dataclass(frozen=True)
class TrackerState:
    """All tracks of a camera.

    Args:
        tracks: Alive ones.
        next_id: Of the next new track.
        identities: (network's number, track id) of people that were lost, oldest first.
    """

    tracks: tuple[Track, ...] = ()
    next_id: int = 0
    identities: tuple[tuple[int, int], ...] = ()


@dataclasses.dataclass(frozen=True)
class TrackedBody:
    """A track in one frame.

    Args:
        track: The track after this frame.
        parameters: Camera frame; smoothed, or predicted when the person was not seen.
        joints_camera: (55, 3) metres.
        time_since_update_s: 0 when the person was seen.
        observation: Index of the frame's observation that is this person; None when not seen.
    """

    track: Track
    parameters: BodyParameters
    joints_camera: NDArray[np.float32]
    time_since_update_s: float
    observation: int | None

    @property
    def velocity_world(self) -> NDArray[np.float32]:
        """(3,) m/s."""
        return self.track.mean[3:].astype(np.float32)


class Tracker:
    """`step(observations, ...) -> (bodies, state)`; holds nothing but its configuration and the body model."""

    def __init__(self, body_model: BodyModel, config: TrackConfig | None = None,
                 smoothing: SmoothingConfig | None = None) -> None:
        self.body_model = body_model
        self.config = config or TrackConfig()
        self.smoothing = smoothing or SmoothingConfig()

    def step(self, observations: Sequence[Observation], T_world_camera: NDArray[np.floating], stamp_ns: int,
             state: TrackerState) -> tuple[list[TrackedBody], TrackerState]:
        """Continue the tracks with one frame.

        Args:
            observations: Bodies of the frame; those with values that are not finite must be left out before.
            T_world_camera: (4, 4) camera pose of the frame.
            stamp_ns: Its stamp; not before the last frame's.
            state: From the previous frame; `TrackerState()` at first.

        Returns:
            Every track once, by falling score: seen ones, predicted ones, and for the last time lost ones.
        """
        T_world_camera = np.asarray(T_world_camera, dtype=np.float64)
        view = _View(T_world_camera, invert(T_world_camera), stamp_ns)
        tracks = self._predicted(state.tracks, stamp_ns)
        pelvis_camera = np.array([o.joints_camera[PELVIS] for o in observations], dtype=np.float64).reshape(-1, 3)
        pelvis_world = apply(T_world_camera, pelvis_camera)
        track_of = {j: i for i, j in self._associate(tracks, observations, pelvis_world, view)}
        seen = set(track_of.values())

        drafts, identities, next_id = [], dict(state.identities), state.next_id
        for j, observation in enumerate(observations):
            if j in track_of:
                track = tracks[track_of[j]]
                if (track.mean_score + observation.score) / 2.0 < self.config.birth_score:
                    drafts.append(self._unseen(track, view, doubted=True))
                    continue
                draft = self._continued(track, observation, pelvis_world[j], view)
            elif observation.score < self.config.birth_score:
                continue
            else:
                known = identities.pop(observation.identity, None) if observation.identity is not None else None
                draft = self._born(next_id if known is None else known, observation, pelvis_world[j], view)
                next_id += known is None
            drafts.append(dataclasses.replace(draft, observation=j))
        drafts += [self._unseen(track, view) for i, track in enumerate(tracks) if i not in seen]

        bodies = self._posed(drafts, view)
        bodies.sort(key=lambda b: (-b.track.score, b.track.track_id))
        lost = [b.track for b in bodies if b.track.state == TrackState.LOST]
        remembered = [*identities.items(), *((t.identity, t.track_id) for t in lost if t.identity is not None)]
        remembered = remembered[max(0, len(remembered) - self.config.max_identities):]
        alive = tuple(b.track for b in bodies if b.track.state != TrackState.LOST)
        return bodies, TrackerState(alive, next_id, tuple(remembered))

    def _predicted(self, tracks: Sequence[Track], stamp_ns: int) -> list[Track]:
        predicted = []
        for track in tracks:
            dt_s = max(0, stamp_ns - track.stamp_ns) * 1e-9
            # Unseen people stop sooner than they go on: velocity fades over two seconds.
            kept = math.exp(-dt_s / 2.0) if track.state == TrackState.PREDICTED else 1.0
            F, Q = np.eye(6), np.zeros((6, 6))
            F.flat[3:18:7], F.flat[21::7] = dt_s, kept
            to_position, to_velocity = self.config.acceleration * dt_s * dt_s / 2.0, self.config.acceleration * dt_s
            Q.flat[0:18:7], Q.flat[21::7] = to_position ** 2, to_velocity ** 2
            Q.flat[3:18:7] = Q.flat[18::7] = to_position * to_velocity
            predicted.append(dataclasses.replace(track, stamp_ns=max(stamp_ns, track.stamp_ns), mean=F @ track.mean,
                                                 covariance=F @ track.covariance @ F.T + Q))
        return predicted

    def _associate(self, tracks: Sequence[Track], observations: Sequence[Observation], pelvis_world: Array,
                   view: _View) -> list[tuple[int, int]]:
        """Pairs (track, observation) of least total distance within the gates."""
        c = self.config
        if not tracks or not len(observations):
            return []
        cost = np.full((len(tracks), len(observations)), FORBIDDEN)
        for i, track in enumerate(tracks):
            offset = pelvis_world - track.mean[:3]
            ray = pelvis_world - view.T_world_camera[:3, 3]
            distance = np.maximum(np.linalg.norm(ray, axis=1), 0.1)
            along = np.einsum("ni,ni->n", offset, ray) / distance
            across2 = np.maximum(np.einsum("ni,ni->n", offset, offset) - along ** 2, 0.0)
            # A doubtful distance is forgiven, up to two standard deviations per gate.
            forgiven = 1.0 + 2.0 * c.depth_noise * distance / max(c.max_distance_m, 1e-6)
            apart = np.sqrt(across2 + (along / forgiven) ** 2)
            # The longer unseen, the farther the person may have come.
            gate = c.max_distance_m + 0.5 * min(1.0, max(0, view.stamp_ns - track.seen_ns) * 1e-9)
            for j, observation in enumerate(observations):
                same = track.identity is not None and track.identity == observation.identity
                if apart[j] <= (3.0 * gate if same else gate):
                    # Known people first, then confirmed tracks before tentative ones.
                    cost[i, j] = apart[j] - 10.0 * same + 0.1 * (track.state == TrackState.TENTATIVE)
        rows, columns = linear_sum_assignment(cost)
        return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if cost[i, j] < FORBIDDEN / 2]

    def _measurement_noise(self, pelvis_world: Array, centre_world: Array) -> Array:
        ray = pelvis_world - centre_world
        distance = max(float(np.linalg.norm(ray)), 0.1)
        ray = ray / distance
        lateral2 = self.config.lateral_noise_m ** 2
        depth2 = (self.config.depth_noise * distance) ** 2 + lateral2
        return np.eye(3) * lateral2 + np.outer(ray, ray) * (depth2 - lateral2)

    def _born(self, track_id: int, observation: Observation, pelvis_world: Array, view: _View) -> _Draft:
        covariance = np.zeros((6, 6))
        covariance[:3, :3] = self._measurement_noise(pelvis_world, view.T_world_camera[:3, 3])
        covariance[3:, 3:] = np.eye(3)
        state = TrackState.CONFIRMED if self.config.confirm_hits <= 1 else TrackState.TENTATIVE
        o = observation
        track = Track(track_id, state, 0, 1, view.stamp_ns, view.stamp_ns, view.stamp_ns,
                      np.concatenate([pelvis_world, np.zeros(3)]), covariance, o.rotations, o.betas, o.expression,
                      view.T_world_camera[:3, :3], o.score, o.score, o.head_uv_px, 1.0, o.identity)
        return _Draft(track, o.rotations, o.betas, o.expression, HEAD, o.joints_camera[HEAD].astype(np.float64))

    def _continued(self, track: Track, observation: Observation, pelvis_world: Array, view: _View) -> _Draft:
        P, R = track.covariance, self._measurement_noise(pelvis_world, view.T_world_camera[:3, 3])
        # OpenCV's solver, and below its `Rodrigues`: for one small matrix numpy and scipy take ten times as long.
        gain = cv2.solve(P[:3, :3] + R, P[:3, :], flags=cv2.DECOMP_CHOLESKY)[1].T
        mean = track.mean + gain @ (pelvis_world - track.mean[:3])
        covariance = P - gain @ P[:3, :]
        speed = float(np.linalg.norm(mean[3:]))
        if speed > self.config.max_speed:
            mean[3:] *= self.config.max_speed / speed
        hits = track.hits + 1
        confirmed = hits >= self.config.confirm_hits or track.state in (TrackState.CONFIRMED, TrackState.PREDICTED)
        head = observation.joints_camera[HEAD].astype(np.float64)
        betas, expression, weight, ratio = observation.betas, observation.expression, track.shape_weight, 1.0
        before, since_s = None, max(1e-3, (view.stamp_ns - track.seen_ns) * 1e-9)
        if self.smoothing.min_cutoff_hz > 0.0:
            before = self._rotations_now(track, view)
            weight = min(weight, self.smoothing.shape_samples - 1.0)
            betas = (weight * track.betas + betas) / (weight + 1.0)
            expression = (weight * track.expression + expression) / (weight + 1.0)
            weight += 1.0
            # Only the distance is smoothed: along the head's ray, so that the head stays where it was seen.
            filtered_z = float(apply(view.T_camera_world, mean[:3])[2])
            seen_z = float(observation.joints_camera[PELVIS, 2])
            if seen_z > 0.2 and filtered_z > 0.2:
                ratio = min(max(filtered_z / seen_z, 0.5), 2.0)
        track = dataclasses.replace(
            track, state=TrackState.CONFIRMED if confirmed else TrackState.TENTATIVE, age=track.age + 1, hits=hits,
            seen_ns=view.stamp_ns, mean=mean, covariance=(covariance + covariance.T) / 2.0,
            rot_world_camera=view.T_world_camera[:3, :3], score=observation.score,
            mean_score=(track.mean_score + observation.score) / 2.0, head_uv_px=observation.head_uv_px,
            shape_weight=weight, identity=track.identity if observation.identity is None else observation.identity)
        return _Draft(track, observation.rotations, betas, expression, HEAD, head * ratio, before, since_s)

    def _unseen(self, track: Track, view: _View, doubted: bool = False) -> _Draft:
        unseen_s = max(0, view.stamp_ns - track.seen_ns) * 1e-9
        # A body seen once or twice may have been nothing: it is not carried on.
        lost = doubted or unseen_s > self.config.timeout_s or track.state == TrackState.TENTATIVE
        track = dataclasses.replace(track, state=TrackState.LOST if lost else TrackState.PREDICTED, age=track.age + 1)
        return _Draft(track, self._rotations_now(track, view), track.betas, track.expression, PELVIS,
                      apply(view.T_camera_world, track.mean[:3]))

    def _rotations_now(self, track: Track, view: _View) -> NDArray[np.float32]:
        """(55, 3, 3) of the track's last body, its root as seen from the present camera."""
        rotations = track.rotations.copy()
        rotations[0] = view.T_camera_world[:3, :3] @ track.rot_world_camera @ rotations[0]
        return rotations

    def _smoothed(self, drafts: Sequence[_Draft]) -> NDArray[np.float32]:
        """(P, 55, 3, 3) rotations by the One-Euro filter: nearer to what is seen the faster a joint turns."""
        rotations = np.stack([d.rotations for d in drafts])
        rows = [i for i, d in enumerate(drafts) if d.before is not None]
        if rows:
            before, now = np.stack([d.before for d in drafts if d.before is not None]), rotations[rows]
            turned = (before != now).any(axis=(-1, -2))  # a small network leaves hands and face alone
            dt_s = np.repeat([drafts[i].since_s for i in rows], turned.sum(axis=1))
            now[turned] = self._followed(before[turned].astype(np.float64), now[turned].astype(np.float64), dt_s)
            rotations[rows] = now
        return rotations

    def _followed(self, start: Array, seen: Array, dt_s: Array) -> Array:
        """(N, 3, 3) on the shortest ways from `start` to `seen`, `dt_s` (N,) later (Rodrigues' formula)."""
        turn = start.transpose(0, 2, 1) @ seen
        skew, sine, angle = axis_and_angle(turn)
        cutoff_hz = self.smoothing.min_cutoff_hz + self.smoothing.beta * angle / dt_s
        part = (angle / (1.0 + 1.0 / (2.0 * np.pi * cutoff_hz * dt_s)))[:, None, None]
        axis = skew / np.maximum(sine, 1e-12)[:, None, None]
        step = np.eye(3) + np.sin(part) * axis + (1.0 - np.cos(part)) * (axis @ axis)
        # Half a turn has two shortest ways: what is seen is taken as it is.
        step = np.where((angle < np.pi - 1e-6)[:, None, None], step, turn)
        return nearest_rotations(start @ step)  # or rounding would grow from frame to frame

    def _posed(self, drafts: Sequence[_Draft], view: _View) -> list[TrackedBody]:
        """Place every body by its anchor joint; one pass of forward kinematics for all of them."""
        if not drafts:
            return []
        rotations = self._smoothed(drafts)
        betas = np.stack([d.betas for d in drafts]).astype(np.float32, copy=False)
        expression = np.stack([d.expression for d in drafts]).astype(np.float32, copy=False)
        _, joints = chain(rotations, rest_joints(self.body_model, betas, expression))
        poses = rotation_vectors(rotations).astype(np.float32)
        bodies = []
        for i, draft in enumerate(drafts):
            transl, pose = (draft.position - joints[i, draft.anchor]).astype(np.float32), poses[i]
            parameters = BodyParameters(
                global_orient=pose[0], transl=transl, body_pose=pose[1:22].reshape(-1), jaw_pose=pose[22],
                leye_pose=pose[23], reye_pose=pose[24], left_hand_pose=pose[25:40].reshape(-1),
                right_hand_pose=pose[40:55].reshape(-1), betas=betas[i], expression=expression[i])
            track, unseen_ns = draft.track, max(0, view.stamp_ns - draft.track.seen_ns)
            if unseen_ns == 0:
                track = dataclasses.replace(track, rotations=rotations[i], betas=betas[i], expression=expression[i])
            bodies.append(TrackedBody(track, parameters, joints[i] + transl, unseen_ns * 1e-9, draft.observation))
        return bodies


@dataclasses.dataclass(frozen=True)
class _View:
    """The camera of the frame."""

    T_world_camera: Array
    T_camera_world: Array
    stamp_ns: int


@dataclasses.dataclass(frozen=True)
class _Draft:
    """A body before it is smoothed and placed: its `anchor` joint belongs at `position` in the camera frame.

    `before` are the rotations that the track had `since_s` ago, from which `rotations` are smoothed; None: they are
    kept as they are. `observation` is the index of what it was made from, None for who was not seen.
    """

    track: Track
    rotations: NDArray[np.float32]
    betas: NDArray[np.float32]
    expression: NDArray[np.float32]
    anchor: int
    position: Array
    before: NDArray[np.float32] | None = None
    since_s: float = 0.0
    observation: int | None = None
