"""What the messages of the fusion say, as plain nested dicts; the rules are those of `message_fields`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.scene import BodyEstimate
from human_scene_ros.sources.message_fields import (
    BodyDescription,
    Fields,
    header_fields,
    pose_with_covariance_fields,
    smplx_body_fields,
)

FUSED_ARRAY = "human_scene_ros/msg/FusedPersonArray"
EXTRINSICS_ARRAY = "human_scene_ros/msg/CameraExtrinsicsArray"
ASSOCIATIONS = "human_scene_ros/msg/FusionAssociations"

SOURCE_TF, SOURCE_FILE, SOURCE_PEOPLE, SOURCE_SCENE, SOURCE_TOPIC = range(5)
EXTRINSICS_UNKNOWN = 5
"""STATUS_UNKNOWN of CameraExtrinsics; smaller values are those of `fusion.extrinsics.ExtrinsicsStatus`."""


@dataclasses.dataclass(frozen=True)
class FusedPersonView:
    """One camera's part in a person.

    Args:
        camera_name: Which camera.
        track_id: The person's track there.
        weight: Share of the view, all together 1.
        residual_m: Distance of the fused head from the view's ray.
    """

    camera_name: str
    track_id: str
    weight: float
    residual_m: float


@dataclasses.dataclass(frozen=True)
class FusedBody:
    """One person of a rig, in the world frame.

    Args:
        body: Parameters and joints are in the world frame; `track_id` is the number of the person.
        status: Bits STATUS_* of FusedPerson.
        covariance: (6, 6) of the pelvis pose; None = unknown.
        views: Who sees the person, best score first; none for somebody extrapolated.
        reprojection_px: Mean pixel error of the head over the views; NaN unknown.
        association_confidence: 0..1.
        last_seen_s: Since a camera saw the person.
    """

    body: BodyEstimate
    status: int
    covariance: NDArray[np.float64] | None
    views: tuple[FusedPersonView, ...]
    reprojection_px: float
    association_confidence: float
    last_seen_s: float = 0.0


@dataclasses.dataclass(frozen=True)
class CameraPlace:
    """Where a camera stands and how well the people agree.

    Args:
        camera_name: Which camera.
        frame: Its optical frame, "" while unknown.
        T_world_camera: (4, 4), None = unknown.
        covariance: (6, 6) of a calibration; None = not estimated.
        rms_residual_m: See CameraExtrinsics.msg; NaN unknown.
        samples: Behind the residual.
        time_offset_s: See CameraExtrinsics.msg; NaN not observable.
        source: SOURCE_*.
        status: STATUS_* of CameraExtrinsics.
        drifted: The people say that it stands elsewhere.
        distance_ratio: How far away all cameras see people over how far away this one does; NaN unknown.
    """

    camera_name: str
    frame: str
    T_world_camera: NDArray[np.float64] | None
    covariance: NDArray[np.float64] | None = None
    rms_residual_m: float = float("nan")
    samples: int = 0
    time_offset_s: float = float("nan")
    source: int = SOURCE_TF
    status: int = 0
    drifted: bool = False
    distance_ratio: float = float("nan")


def person_id_text(prefix: str, number: int) -> str:
    """The id of a person in messages, topics and frames."""
    return f"{prefix}{number:04d}"


def fused_person_fields(person: FusedBody, description: BodyDescription) -> Fields:
    """human_scene_ros/FusedPerson.

    Raises:
        MessageError: See `smplx_body_fields`.
    """
    name = person_id_text(description.id_prefix, person.body.track_id)
    body = smplx_body_fields(person.body, None, description, np.eye(3), person_id=name)
    if person.covariance is not None:
        body["pelvis"]["covariance"] = np.asarray(person.covariance, np.float64).reshape(36)
    return {
        "person_id": name, "state": int(person.body.track_state), "status": person.status, "body": body,
        "camera_names": [view.camera_name for view in person.views],
        "track_ids": [view.track_id for view in person.views],
        "view_weights": np.array([view.weight for view in person.views], np.float32),
        "view_residuals": np.array([view.residual_m for view in person.views], np.float32),
        "reprojection_error": person.reprojection_px, "association_confidence": person.association_confidence,
        "num_views": len(person.views), "last_seen": person.last_seen_s}


def fused_array_fields(stamp_ns: int, world_frame: str, segment: int, expected: Sequence[str], used: Sequence[str],
                       spread_s: float, latency_s: float, people: Sequence[FusedBody],
                       description: BodyDescription) -> Fields:
    """`FUSED_ARRAY`."""
    return {"header": header_fields(stamp_ns, world_frame), "segment": segment, "cameras_expected": list(expected),
            "cameras_used": list(used), "time_spread": spread_s, "latency": latency_s,
            "people": [fused_person_fields(person, description) for person in people]}


def camera_extrinsics_fields(place: CameraPlace, world_frame: str) -> Fields:
    """human_scene_ros/CameraExtrinsics."""
    return {
        "camera_name": place.camera_name, "parent_frame": world_frame, "child_frame": place.frame,
        "pose": pose_with_covariance_fields(place.T_world_camera, place.covariance),
        "rms_residual": place.rms_residual_m, "samples": place.samples, "time_offset": place.time_offset_s,
        "source": place.source, "status": EXTRINSICS_UNKNOWN if place.T_world_camera is None else place.status,
        "drifted": place.drifted}


def extrinsics_array_fields(stamp_ns: int, world_frame: str, places: Sequence[CameraPlace]) -> Fields:
    """`EXTRINSICS_ARRAY`."""
    return {"header": header_fields(stamp_ns, world_frame),
            "cameras": [camera_extrinsics_fields(place, world_frame) for place in places]}


def associations_fields(stamp_ns: int, world_frame: str, camera_names: Sequence[str], track_ids: Sequence[str],
                        person_ids: Sequence[str], status: NDArray[np.integer], residuals_m: NDArray[np.floating],
                        depth_fraction: float, cycle_violation_rate: float) -> Fields:
    """`ASSOCIATIONS`; one entry per detection."""
    return {"header": header_fields(stamp_ns, world_frame), "camera_names": list(camera_names),
            "track_ids": list(track_ids), "person_ids": list(person_ids), "status": status.astype(np.uint8),
            "residuals": residuals_m.astype(np.float32), "depth_fraction": depth_fraction,
            "cycle_violation_rate": cycle_violation_rate}


# --- read back ---------------------------------------------------------------------------------------------------

def person_number(person_id: str) -> int:
    """The digits of an id such as "p0007"; -1 for "", which is nobody."""
    return int("".join(c for c in person_id if c.isdigit()) or 0) if person_id else -1


def people_joints(people: Iterable[Any]) -> dict[int, NDArray[np.float64]]:
    """Person number -> (22, 3) body joints, metres, of FusedPerson messages."""
    return {person_number(p.person_id): np.array(p.body.joints, np.float64).reshape(-1, 3)[:22] for p in people}
