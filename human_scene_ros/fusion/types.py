"""What goes into and comes out of the fusion: plain arrays, one row per detection or person."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ShapeError
from human_scene_ros.geometry.arrays import check_shape

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class PersonStatus(enum.IntFlag):
    """Marks of a fused person; 0 = every view agreed.

    STALE_LIMBS: no view has the legs in its image, they are as last seen. RAYS_REJECTED: the rays meet behind a camera
    or far from where every view sees the head; depth decides.
    """

    OK = 0
    SINGLE_VIEW = 1
    ROTATION_AMBIGUOUS = 2
    ROTATION_WIDE = 4
    VIEW_FLIPPED = 8
    PARALLEL_RAYS = 16
    STALE_LIMBS = 32
    RAYS_REJECTED = 64


class DetectionStatus(enum.IntEnum):
    """What became of a detection."""

    ASSIGNED = 0
    UNASSIGNED = 1
    INVALID = 2
    NO_EXTRINSICS = 3
    STALE = 4
    DUPLICATE = 5


@dataclasses.dataclass(frozen=True)
class View:
    """One camera of the rig.

    Args:
        name: Camera name.
        T_world_camera: (4, 4) optical frame to world; None = unknown, the view takes no part.
        focal_px: Mean focal length of the images that the detections come from.
        image_size: Width and height, pixels; None = unknown, bodies then count as inside the image.
        principal_px: (u, v) of the optical axis; None = the middle of the image.
    """

    name: str
    T_world_camera: NDArray[np.floating] | None
    focal_px: float
    image_size: tuple[int, int] | None = None
    principal_px: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Detections:
    """People seen by the views around one moment; row order is free.

    Args:
        view: (N,) index into the views of the fusion.
        stamp_s: (N,) acquisition time.
        head_camera: (N, 3) head joint, optical frame, metres.
        pose: (N, J, 3) axis-angle; the root's turns body axes into the optical frame, the others are relative
            to their parents.
        betas: (N, B).
        score: (N,) in [0, 1].
        token: (N, D) identity features, or None.
        track_id: (N,) numbers of a tracker that already ran per view (>= 0), or None.
    """

    view: Index
    stamp_s: Array
    head_camera: Array
    pose: Array
    betas: Array
    score: Array
    token: Array | None = None
    track_id: Index | None = None

    def __len__(self) -> int:
        return len(self.view)

    def check(self, joints: int) -> None:
        """Raise `ShapeError` unless all arrays have one row per detection and J joints."""
        n = len(self.view)
        for name, shape in (("stamp_s", (n,)), ("head_camera", (n, 3)), ("pose", (n, joints, 3)),
                            ("betas", (n, None)), ("score", (n,))):
            check_shape(name, getattr(self, name), shape)
        if self.token is not None:
            check_shape("token", self.token, (n, None))
        if self.track_id is not None:
            check_shape("track_id", self.track_id, (n,))

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Detections:
        """The chosen rows."""
        return Detections(self.view[rows], self.stamp_s[rows], self.head_camera[rows], self.pose[rows],
                          self.betas[rows], self.score[rows],
                          None if self.token is None else self.token[rows],
                          None if self.track_id is None else self.track_id[rows])

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """All rows of several sets; tokens and track numbers survive only if every part has them.

        Raises:
            ShapeError: There is no part, or their arrays do not fit.
        """
        if not parts:
            raise ShapeError("no detections to put together; expected at least one set")

        def joined(name: str) -> NDArray[np.generic] | None:
            arrays = [getattr(part, name) for part in parts]
            return None if any(a is None for a in arrays) else np.concatenate(arrays)

        return cls(**{field.name: joined(field.name) for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class FusedPeople:
    """Everybody seen at one moment, in the world frame; row order is by person_id.

    Args:
        person_id: (P,) never used again.
        joints_world: (P, J, 3) metres.
        head_world: (P, 3) what the rays say; equals the head joint.
        covariance: (P, 3, 3) of the head, inflated for what all views get wrong together.
        rotations: (P, J, 3, 3); the root's turns body axes into the world.
        betas: (P, B).
        velocity_world: (P, 3) m/s.
        score: (P,) mean of the views' scores.
        quality: (P,) agreement of the root rotations, 1 = equal.
        num_views: (P,).
        age: (P,) frames in which the person has been seen.
        status: (P,) of `PersonStatus` bits.
    """

    person_id: Index
    joints_world: Array
    head_world: Array
    covariance: Array
    rotations: Array
    betas: Array
    velocity_world: Array
    score: Array
    quality: Array
    num_views: Index
    age: Index
    status: Index

    def __len__(self) -> int:
        return len(self.person_id)


@dataclasses.dataclass(frozen=True)
class FusedFrame:
    """Result of one step.

    Args:
        stamp_s: Time that all people are given for.
        people: People seen now and worth publishing.
        detection_person: (N,) person of each input detection, -1 = nobody.
        detection_status: (N,) of `DetectionStatus`.
        residual_m: (N,) distance of the fused head from the ray of each detection; NaN without a person.
        depth_fraction: Standard deviation of depth over depth in use now.
        cycle_violation_rate: Contradictions among fresh matches of three views.
        alive: (K,) ids of everybody who is still held: also those unseen for a moment, or not believed in.
        merged: (kept, dropped) ids of those who became one, since the last step.
        stage_ms: Duration of "tracker", "association" and "fusion".
    """

    stamp_s: float
    people: FusedPeople
    detection_person: Index
    detection_status: Index
    residual_m: Array
    depth_fraction: float
    cycle_violation_rate: float
    alive: Index
    merged: tuple[tuple[int, int], ...]
    stage_ms: dict[str, float]


