"""Every parameter of the reconstructor node, with its default, unit, range and meaning. No ROS import."""

from __future__ import annotations

import dataclasses
from typing import Literal

from human_scene_ros.errors import ConfigError
from human_scene_ros.nodes.parameters import option


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which network and body run, and where."""

    preset: Literal["nano", "human3r_672s", "human3r_672b", "human3r_672l", "human3r_896l"] = option(
        "nano", "Network preset; its weights are shipped for nano only.")
    checkpoint: str = option("", "Weights file (.safetensors); empty = the preset's shipped weights.")
    body: str = option("", "SMPL-X-layout body model (.npz); empty = the shipped open body.")
    device: str = option("auto", "torch device: auto, cpu, cuda or cuda:N.")
    engine: Literal["auto", "torch", "onnx"] = option(
        "auto", "What runs the network; auto = the faster of torch and onnxruntime where both can, by timing them.")
    precision: Literal["auto", "float32", "bfloat16"] = option("auto", "Arithmetic of the network; auto = float32.")
    reset_interval: int = option(0, "Frames after which the network's memory starts afresh; 0 = never.", low=0,
                                 high=1000000, dynamic=True)
    threads: int = option(1, "CPU threads of the network; 0 = torch's own choice.", low=0, high=256)


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """What comes in and what may be left out."""

    transport: Literal["raw", "compressed"] = option(
        "raw", "raw: topic `image` (Image); compressed: `image/compressed` (CompressedImage, jpeg or png).")
    reliability: Literal["auto", "reliable", "best_effort"] = option(
        "auto", "auto: reliable if every publisher of the image offers it, else best effort.")
    queue: int = option(2, "Images that may wait in the middleware, live mode.", low=1, high=1000)
    drop_policy: Literal["latest", "all"] = option(
        "latest", "latest: newest image wins, live cameras; all: every image is processed in order, replay.")
    max_pending: int = option(128, "Images that may wait for the worker when drop_policy is all.", low=1,
                              high=10000)
    max_rate: float = option(0.0, "Images per second that are processed at most; 0 = no limit (latest only).",
                             low=0.0, high=1000.0, dynamic=True)
    max_age: float = option(0.5, "Seconds; images that waited longer are dropped; 0 = never (latest only).",
                            low=0.0, high=60.0, dynamic=True)
    max_gap: float = option(5.0, "Seconds between two stamps after which tracking starts anew; 0 = never.",
                            low=0.0, high=3600.0, dynamic=True)
    rectified: Literal["auto", "always", "never"] = option(
        "auto", "Is lens distortion removed already (use P, not K and D)? auto: if the topic name has 'rect'.")
    use_depth: bool = option(False, "Take depth images (topic `depth`, 16UC1 mm or 32FC1 m, registered to the image) "
                             "for metric scale, the distance of people and camera motion.")
    depth_tolerance: float = option(0.02, "Seconds between an image and its depth image, at most.", low=0.0, high=1.0)
    silence_warning: float = option(5.0, "Seconds without an image until diagnostics warn.", low=0.5,
                                    high=3600.0, dynamic=True)


@dataclasses.dataclass(frozen=True)
class OrderConfig:
    """The order in which the images of several `cameras` reach the one network."""

    timeout: float = option(0.1, "Seconds an image waits at most for an older one of another camera (cameras only).",
                            low=0.001, high=60.0)
    dead_after: float = option(1.0, "Seconds of silence after which a camera is not waited for (cameras only).",
                               low=0.1, high=3600.0)


@dataclasses.dataclass(frozen=True)
class BodiesConfig:
    """Detection and the body message."""

    min_score: float = option(0.0, "No track begins below this detection score; 0 = the preset's own.", low=0.0,
                              high=1.0, dynamic=True)
    max_people: int = option(20, "People per image at most.", low=0, high=100, dynamic=True)
    align_to_surface: bool = option(False, "Shift each body along its ray until it meets the person's points: of the "
                                    "depth image with input.use_depth, else of the map.", dynamic=True)
    joint_set: int = option(2, "Joints in the message: 0 none, 1 the 22 of the body, 2 all 55.", low=0,
                            high=2)


@dataclasses.dataclass(frozen=True)
class TrackConfig:
    """Identity over time."""

    max_distance: float = option(0.7, "Metres between a track and the detection that continues it, at most.",
                                 low=0.05, high=10.0, dynamic=True)
    timeout: float = option(1.0, "Seconds a person may be unseen before the track ends.", low=0.0, high=60.0,
                            dynamic=True)
    confirm_hits: int = option(3, "Detections until a track is confirmed.", low=1, high=100, dynamic=True)
    id_prefix: str = option("b", "Start of every track id; a letter first, so that ids are valid frame names.")


@dataclasses.dataclass(frozen=True)
class SmoothingConfig:
    """One-Euro filter of the bodies."""

    min_cutoff: float = option(1.0, "Hz; lower is smoother and later; 0 = no smoothing.", low=0.0, high=100.0,
                               dynamic=True)
    beta: float = option(0.05, "How much speed raises the cut-off.", low=0.0, high=100.0, dynamic=True)


@dataclasses.dataclass(frozen=True)
class CloudConfig:
    """The cloud of the current image."""

    rate: float = option(10.0, "Clouds per second at most.", low=0.0, high=1000.0, dynamic=True)
    max_bytes: int = option(450000, "Bytes of one cloud or depth image at most; points are thinned to fit.",
                            low=1600, high=100000000, dynamic=True)
    people: Literal["keep", "remove", "only"] = option("remove", "People's points in ~/cloud.", dynamic=True)
    semantic: bool = option(False, "Add instance_id (number of the track, -1 nobody), body_u, body_v, body_w (place on "
                            "the body at rest, 0 to 1) and confidence of both to ~/cloud; needs people keep or only.",
                            dynamic=True)
    min_confidence: float = option(1.0, "Points below this confidence stay out of cloud and map; 1 = all, nano is "
                                   "rarely surer; official weights deserve 1.5.", low=0.0, high=1000.0, dynamic=True)
    max_range: float = option(10.0, "Metres along the optical axis; farther points stay out of cloud and map.", low=0.1,
                              high=1000.0, dynamic=True)


@dataclasses.dataclass(frozen=True)
class MapConfig:
    """The accumulated map without people."""

    enabled: bool = option(True, "Accumulate ~/map/cloud.", dynamic=True)
    voxel: float = option(0.05, "Metres, edge of a voxel.", low=0.005, high=1.0)
    max_points: int = option(2000000, "Voxels kept at most; the oldest leave first.", low=1000, high=50000000)
    max_bytes: int = option(450000, "Bytes of one ~/map/cloud message at most; thinned to fit.", low=1600,
                            high=1000000000, dynamic=True)
    people_margin: float = option(0.15, "Metres around people that stay out of the map.", low=0.0, high=2.0)
    rate: float = option(0.5, "Map messages per second at most.", low=0.0, high=100.0, dynamic=True)
    update_rate: float = option(5.0, "Images per second at most that enter the map; neighbours show the same.",
                                low=0.1, high=1000.0, dynamic=True)


@dataclasses.dataclass(frozen=True)
class ScaleConfig:
    """Where metres come from."""

    source: Literal["auto", "network", "people", "odometry"] = option(
        "auto", "auto: depth images where they come, else the network by the focal length; network: never depth; "
        "people: as auto, but without depth images the map takes the scale of the bodies in it; "
        "odometry: as auto, and each image's depth is brought to that of the odometry's keyframe.", dynamic=True)
    ema: float = option(0.02, "Share of each new depth image in the running scale.", low=0.0, high=1.0, dynamic=True)
    people_tolerance: float = option(
        0.3, "With depth images: how far from 1 the factor on them that people's size asks for may be before "
        "diagnostics warn; 0.05 for a network that knows people's distance so well.", low=0.0, high=10.0, dynamic=True)


@dataclasses.dataclass(frozen=True)
class OdometryConfig:
    """What helps the odometry."""

    hint_frame: str = option("", "Frame in which /tf knows the robot and which does not jump (REP-105: odom); the "
                             "camera is expected to move as it says; empty = no hint.")
    hint_wait: float = option(0.05, "Seconds an image waits for /tf at its stamp, at most; then it goes on without.",
                              low=0.0, high=1.0)
    hint_rotation_noise: float = option(0.01, "Radians by which the hint may be wrong from image to image.", low=1e-4,
                                        high=3.0)
    hint_translation_noise: float = option(0.02, "Metres by which the hint may be wrong from image to image.",
                                           low=1e-4, high=10.0)


@dataclasses.dataclass(frozen=True)
class TfConfig:
    """Which transforms are sent."""

    mode: Literal["none", "camera"] = option(
        "none", "none: no camera transform; camera: world_frame -> root of the camera's own tree.")
    world_frame: str = option("map", "Name of the z-up world frame.")
    base_frame: str = option("", "Robot base for ~/odom; empty = no odometry message.")
    odom_frame: str = option("odom", "Parent frame of ~/odom.")
    bodies: Literal["none", "root"] = option(
        "root", "root: optical frame -> body_<track_id> for every person; never with several cameras, whose ids are "
        "their own.", dynamic=True)
    time_offset: float = option(0.0, "Seconds added to the stamps of sent transforms.", low=-10.0, high=10.0,
                                dynamic=True)
    wait: float = option(0.2, "Seconds to wait for /tf at the image stamp.", low=0.0, high=10.0, dynamic=True)


@dataclasses.dataclass(frozen=True)
class PathConfig:
    """The camera's path."""

    max_poses: int = option(2000, "Poses kept; the oldest leave first.", low=2, high=100000)
    rate: float = option(1.0, "Path messages per second at most.", low=0.0, high=100.0, dynamic=True)


@dataclasses.dataclass(frozen=True)
class DiagnosticsConfig:
    """Health reports."""

    period: float = option(1.0, "Seconds between reports on /diagnostics and ~/status.", low=0.05, high=60.0)


@dataclasses.dataclass(frozen=True)
class ReconstructorConfig:
    """Parameters of `reconstructor_node`; dotted names as in the README table."""

    model: ModelConfig = ModelConfig()
    input: InputConfig = InputConfig()
    sync: OrderConfig = OrderConfig()
    bodies: BodiesConfig = BodiesConfig()
    track: TrackConfig = TrackConfig()
    smoothing: SmoothingConfig = SmoothingConfig()
    cloud: CloudConfig = CloudConfig()
    map: MapConfig = MapConfig()
    scale: ScaleConfig = ScaleConfig()
    odometry: OdometryConfig = OdometryConfig()
    tf: TfConfig = TfConfig()
    path: PathConfig = PathConfig()
    diagnostics: DiagnosticsConfig = DiagnosticsConfig()
    camera_pose: Literal["auto", "network", "odometry", "guarded", "static"] = option(
        "auto", "Where the camera's motion comes from; auto = the network's pose head, else odometry; network = its "
        "pose head or pair head; guarded = odometry that expects the motion of that head; static for a camera that "
        "never moves.")
    camera_name: str = option("camera", "Name of the camera in messages and diagnostics; not used with cameras.")
    cameras: tuple[str, ...] = option((), "Names of several cameras for this one network: topics NAME/image, "
                                      "NAME/camera_info and NAME/human_scene/bodies; empty = one camera.")
    autostart: bool = option(True, "Configure and activate at start; false = a lifecycle manager does it.")

    def __post_init__(self) -> None:
        wrong = [name for name in self.cameras if not name.isidentifier() or not name.isascii()]
        if wrong:
            raise ConfigError(f"cameras: {wrong} cannot be names of cameras; expected letters, digits and _, a letter "
                              "first")
        if len(set(self.cameras)) != len(self.cameras):
            raise ConfigError(f"cameras = {list(self.cameras)}: a name is given twice")
        if self.cloud.semantic and self.cloud.people == "remove":
            raise ConfigError("cloud.semantic: true with cloud.people: remove: the points that it describes are left "
                              "out; set cloud.people to keep or only")
        single = [name for name, given in (("tf.mode: camera", self.tf.mode == "camera"),
                                           ("tf.base_frame", self.tf.base_frame),
                                           ("odometry.hint_frame", self.odometry.hint_frame)) if given]
        if self.cameras and single:
            raise ConfigError(f"{', '.join(single)} with cameras = {list(self.cameras)}: only for one camera; for a "
                              "rig leave it out and let fusion_node send transforms")

    @property
    def views(self) -> tuple[str, ...]:
        """Names of all cameras, of the only one too."""
        return self.cameras or (self.camera_name,)
