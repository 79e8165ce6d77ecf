"""Every parameter of the fusion node, with its default, unit, range and meaning. No ROS import.

Cameras are named by the parameter `cameras`; each name is a group of parameters of its own (`front.bodies_topic`) and
a time offset (`sync.time_offsets.front`), so the configuration class is made for the cameras at hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from human_scene_ros.errors import ConfigError
from human_scene_ros.nodes.parameters import option


@dataclasses.dataclass(frozen=True)
class CameraConfig:
    """One camera of the rig; its parameters begin with its name."""

    bodies_topic: str = option("", "SmplxBodyArray of this camera; empty = <camera>/human_scene/bodies.")
    map_topic: str = option("", "PointCloud2 of this camera's map; empty = map/cloud beside its bodies.")
    extrinsics_source: Literal["tf", "file", "topic"] = option(
        "tf", "Where its pose comes from: tf; file: extrinsics.file; topic: camera_pose inside its body messages.")


@dataclasses.dataclass(frozen=True)
class SyncConfig:
    """Frames of free-running cameras into sets of one moment."""

    window: float = option(0.034, "Seconds between the stamps of one set at most.", low=0.001, high=1.0, dynamic=True)
    timeout: float = option(0.1, "Seconds after which a set leaves without the cameras that are late.", low=0.001,
                            high=60.0, dynamic=True)
    min_cameras: int = option(1, "Smaller sets are dropped.", low=1, high=1000, dynamic=True)
    dead_after: float = option(1.0, "Seconds of silence after which a camera is not waited for.", low=0.1, high=3600.0,
                               dynamic=True)


@dataclasses.dataclass(frozen=True)
class AssociationConfig:
    """Who is who across cameras."""

    cost: Literal["mahalanobis", "rays", "paper"] = option(
        "mahalanobis", "mahalanobis: rays and depths with their covariance; rays: no depth is believed, for cameras "
        "that are well placed and depths that are poor; paper: weighted joint distances.")
    gate: float = option(4.2, "Standard deviations between two views of one person at most (mahalanobis, rays).",
                         low=0.5, high=100.0, dynamic=True)
    position_weight: float = option(0.8, "Weight of the joint distance in the world (paper).", low=0.0, high=100.0,
                                    dynamic=True)
    pose_weight: float = option(0.2, "Weight of the joint distance in canonical pose (paper).", low=0.0, high=100.0,
                                dynamic=True)
    depth_noise: float = option(0.15, "Relative error of distances (standard deviation) until it is measured, from "
                                      "people whom three cameras see; right for nano, 0.09 for good networks and two "
                                      "cameras.", low=0.01, high=1.0)
    sure_score: float = option(0.9, "Rays of bodies with lower scores count as blunter, by score over this one; right "
                                    "for nano, 0.7 for two cameras that face each other, 0 = never.", low=0.0, high=1.0)
    max_cost: float = option(0.8, "Metres; a pair that costs more is no pair (paper).", low=0.01, high=100.0,
                             dynamic=True)


@dataclasses.dataclass(frozen=True)
class FuseConfig:
    """One body out of several views."""

    position: Literal["map", "rays", "mean"] = option(
        "map", "map: rays and depths by their certainty; rays: triangulation; mean: of the views' points.")
    min_angle: float = option(3.0, "Degrees; rays that cross by less are not triangulated: distances decide.", low=0.0,
                              high=90.0, dynamic=True)
    robust: bool = option(True, "Views that contradict the others count less (three views and more).", dynamic=True)
    pose: Literal["chordal", "median"] = option("chordal", "Mean of joint rotations, or their median from three views "
                                                           "on.")
    betas: Literal["mean", "median"] = option("mean", "Shape over time: running mean, or median with smoothing, for "
                                                      "views that are wrong by far now and then.")
    smoothing: float = option(0.4, "Share of the last rotations that enters the next; 0 = off.", low=0.0, high=0.95,
                              dynamic=True)


@dataclasses.dataclass(frozen=True)
class PersonConfig:
    """Identity over time."""

    timeout: float = option(3.0, "Seconds a person may be unseen by every camera before the id ends.", low=0.1,
                            high=3600.0, dynamic=True)
    coast: float = option(0.5, "Seconds for which an unseen person is still published, extrapolated; 0 = never.",
                          low=0.0, high=60.0, dynamic=True)
    min_views: int = option(1, "Nobody is published whom fewer cameras at a time have ever seen, in three sets; 2 "
                               "keeps a weak detector's ghosts out.", low=1, high=1000, dynamic=True)
    id_prefix: str = option("p", "Start of every person id; a letter first, so that ids are valid frame names.")


@dataclasses.dataclass(frozen=True)
class ExtrinsicsConfig:
    """Where the cameras stand."""

    file: str = option("", "YAML file with the poses of cameras whose extrinsics_source is file.")
    wait: float = option(0.05, "Seconds to wait for /tf at the stamp of an image.", low=0.0, high=10.0, dynamic=True)
    drift_warn: float = option(0.15, "Metres between a camera's rays and the people that the others see, median, "
                                     "above which it counts as bumped.", low=0.01, high=10.0, dynamic=True)
    offset_warn: float = option(0.02, "Seconds of clock offset, as people's motion shows it, that diagnostics warn of.",
                                low=0.001, high=10.0, dynamic=True)
    distance_warn: float = option(0.3, "How far from 1 the distance of people as all cameras see them over a camera's "
                                       "own may be before diagnostics warn; 0.05 for a network that knows it so well.",
                                  low=0.01, high=10.0, dynamic=True)
    keep: float = option(60.0, "Seconds of people that are kept for ~/calibrate_extrinsics.", low=1.0, high=3600.0)


@dataclasses.dataclass(frozen=True)
class FusionMapConfig:
    """One map out of those of the cameras' reconstructors, which must have map.enabled."""

    enabled: bool = option(False, "Merge the ~/map/cloud of all reconstructors into map/cloud.")
    voxel: float = option(0.05, "Metres, edge of a voxel.", low=0.005, high=1.0)
    max_points: int = option(2000000, "Voxels at most.", low=1000, high=50000000)
    max_bytes: int = option(450000, "Bytes of one map/cloud message at most; thinned to fit.", low=1600,
                            high=1000000000, dynamic=True)
    rate: float = option(0.5, "Merged maps per second at most.", low=0.01, high=100.0)


@dataclasses.dataclass(frozen=True)
class FusionTfConfig:
    """Which transforms are sent. A calibration that is applied always goes to /tf_static."""

    people: Literal["none", "root"] = option("root", "root: world_frame -> person_<person_id> for every person.",
                                             dynamic=True)


@dataclasses.dataclass(frozen=True)
class FusionDiagnosticsConfig:
    """Health reports."""

    period: float = option(1.0, "Seconds between reports on /diagnostics and ~/status.", low=0.05, high=60.0)
    silence_warning: float = option(2.0, "Seconds without bodies of a camera until diagnostics warn.", low=0.1,
                                    high=3600.0, dynamic=True)


@dataclasses.dataclass(frozen=True)
class FusionNodeConfig:
    """Parameters of `fusion_node` without those of the cameras; see `config_for`."""

    cameras: tuple[str, ...] = option((), "Names of the cameras; each is a group of parameters.")
    world_frame: str = option("map", "Name of the z-up world frame.")
    body: str = option("", "SMPL-X-layout body model (.npz) of the bodies; empty = the shipped open body.")
    output_rate: float = option(0.0, "Sets per second at most; 0 = every set.", low=0.0, high=1000.0, dynamic=True)
    sync: SyncConfig = SyncConfig()
    assoc: AssociationConfig = AssociationConfig()
    fuse: FuseConfig = FuseConfig()
    person: PersonConfig = PersonConfig()
    extrinsics: ExtrinsicsConfig = ExtrinsicsConfig()
    map: FusionMapConfig = FusionMapConfig()
    tf: FusionTfConfig = FusionTfConfig()
    diagnostics: FusionDiagnosticsConfig = FusionDiagnosticsConfig()
    autostart: bool = option(True, "Configure and activate at start; false = a lifecycle manager does it.")

    def __post_init__(self) -> None:
        if not self.person.id_prefix[:1].isalpha():
            raise ConfigError(f"person.id_prefix = '{self.person.id_prefix}': must start with a letter, for ids are "
                              "used in frame and topic names")


def config_for(cameras: Sequence[str]) -> type[FusionNodeConfig]:
    """The configuration class of a rig: `FusionNodeConfig`, a `CameraConfig` per camera, a time offset per camera.

    Raises:
        ConfigError: A name is given twice, is no identifier, or is that of another group.
    """
    taken = {field.name for field in dataclasses.fields(FusionNodeConfig)}
    for name in cameras:
        if not name.isidentifier() or not name.isascii() or name in taken:
            raise ConfigError(f"cameras: '{name}' cannot be a camera's name; expected letters, digits and _, none of "
                              f"{sorted(taken)}")
    if len(set(cameras)) != len(cameras):
        raise ConfigError(f"cameras = {list(cameras)}: a name is given twice")
    if not cameras:
        return FusionNodeConfig
    offsets: Any = dataclasses.make_dataclass("TimeOffsets", [
        (name, float, option(0.0, f"Seconds added to the stamps of {name}.", low=-10.0, high=10.0, dynamic=True))
        for name in cameras], frozen=True)
    sync: Any = dataclasses.make_dataclass(
        "RigSyncConfig", [("time_offsets", offsets, offsets())], bases=(SyncConfig,), frozen=True)
    return dataclasses.make_dataclass(
        "RigConfig", [("sync", sync, sync()), *((name, CameraConfig, CameraConfig()) for name in cameras)],
        bases=(FusionNodeConfig,), frozen=True)


def camera_config(config: FusionNodeConfig, camera: str) -> CameraConfig:
    """The group of one camera."""
    group = getattr(config, camera)
    assert isinstance(group, CameraConfig)
    return group


def time_offset_s(config: FusionNodeConfig, camera: str) -> float:
    """What is added to a camera's stamps, seconds."""
    return float(getattr(config.sync.time_offsets, camera))  # type: ignore[attr-defined]
