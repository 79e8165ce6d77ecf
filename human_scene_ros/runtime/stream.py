"""Streaming inference: one camera frame in, one scene estimate out, constant memory.

A stream owns what links the frames of one camera: the network's recurrent state, the odometry, the tracks and the
world's direction. Feed it frames in time order; call `reset()` after a cut. It knows nothing of ROS, topics or
threads. The route is `HumanSceneStream.step`.

Frames of reference: "origin" is the first optical frame after a reset, "world" is z up (`runtime.world`). The
network image is a resized crop of the input image ("dense" maps have its size); numbers called `_px` refer to the
input image. A frame that raises leaves the stream as it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from human_scene_ros.body.model import BodyModel, standing_height
from human_scene_ros.body.scale import ScaleEstimate, ScaleState
from human_scene_ros.body.skeleton import HEAD
from human_scene_ros.errors import ConfigError, ImageError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.model.assembly import RecurrentStep, WorldChain, estimate_focal, step_in_chunks
from human_scene_ros.model.checkpoint import CheckpointInfo
from human_scene_ros.model.network import PRODUCT_OUTPUTS, HumanSceneNetwork
from human_scene_ros.model.preprocess import Placement, place, resize_and_crop, to_tensor
from human_scene_ros.model.types import NetworkOutput, StreamState
from human_scene_ros.runtime.odometry import KeyframeOdometry, OdometryConfig, OdometryState
from human_scene_ros.runtime.pair_motion import PairState, follow
from human_scene_ros.runtime.people import people_from_network
from human_scene_ros.runtime.scale import (
    SCALE_CHECK,
    SCALE_FILTER,
    people_samples,
    scale_problem,
    sensed_ratios,
    surfaces_support,
)
from human_scene_ros.runtime.surface import body_surfaces, surface_ratios
from human_scene_ros.runtime.tracks import (
    Observation,
    SmoothingConfig,
    TrackConfig,
    TrackedBody,
    Tracker,
    TrackerState,
)
from human_scene_ros.runtime.world import WorldAlignment, align_world, level_world
from human_scene_ros.scene import (
    BodyEstimate,
    CameraFrame,
    PoseHint,
    ScaleSource,
    SceneEstimate,
    TrackingStatus,
)

logger = logging.getLogger(__name__)

MIN_SIDE_PX = 16
FOCAL_FRAMES = 10  # frames whose focal estimates are averaged when the camera is not calibrated
BODY_JOINTS = 22
GUARD_NOISE = (0.03, 0.05)  # what a network's pose may be wrong from frame to frame, radians and metres


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """How one camera stream is run. May be exchanged between frames (`HumanSceneStream.config`).

    Args:
        min_score: No track begins with a detection below it or goes on with a lower mean; 0 = the preset's own.
            Weaker detections, down to the network's threshold, only continue a track.
        max_people: People per frame at most, the best scores first.
        duplicate_distance_m: Of two heads nearer than this across the viewing ray, the weaker is dropped.
        mask_threshold: Person probability from which a pixel is a person; 0 = the preset's own.
        camera_pose: "auto": by the network where it has a pose head, else by odometry; "network": by its pose head, or
            else its pair head; "guarded": by odometry that expects the motion of that head, which holds where tracking
            fails, unless the frame has a hint; "static": never moves.
        reset_interval: Frames after which the recurrent state starts afresh, poses being chained; 0 = never.
        use_depth: Take metric scale of the map and distance of the people from the frame's depth image when it has one.
        align_to_surface: Shift each body along its ray to the points of the person: those of the depth image where
            `use_depth` finds one, else of the map (`runtime.surface`).
        depth_scale_ema: Share of each new frame in the running depth scale.
        scale_source: "auto": depth where `use_depth` finds it, else the network's own; "people": without depth the map
            is brought to the size of the bodies in it (`runtime.scale`); "odometry": each frame's depth is also
            brought to the scale of the odometry's keyframe.
        people_tolerance: How far from 1 the factor that people ask for may be where depth images give the scale.
        world: "auto": on the floor if the first frame shows it; "level": the first camera is level.
        track: See `TrackConfig`.
        smoothing: See `SmoothingConfig`.
        odometry: See `OdometryConfig`.
        precision: "auto" and "float32": float32; "bfloat16": mixed precision by autocast.
    """

    min_score: float = 0.0
    max_people: int = 20
    duplicate_distance_m: float = 0.12
    mask_threshold: float = 0.0
    camera_pose: Literal["auto", "network", "odometry", "guarded", "static"] = "auto"
    reset_interval: int = 0
    use_depth: bool = True
    align_to_surface: bool = False
    depth_scale_ema: float = 0.02
    scale_source: Literal["auto", "network", "people", "odometry"] = "auto"
    people_tolerance: float = 0.3
    world: Literal["auto", "level"] = "auto"
    track: TrackConfig = TrackConfig()
    smoothing: SmoothingConfig = SmoothingConfig()
    odometry: OdometryConfig = OdometryConfig()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        for name, low, high in (("min_score", 0.0, 1.0), ("max_people", 0, 254), ("duplicate_distance_m", 0.0, 10.0),
                                ("mask_threshold", 0.0, 1.0), ("reset_interval", 0, 10**9),
                                ("depth_scale_ema", 0.0, 1.0), ("people_tolerance", 0.0, 10.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"stream.{name} = {value}: must be in [{low}, {high}]")


@dataclasses.dataclass(frozen=True)
class StreamMemory:
    """Everything that links frames. Immutable: `HumanSceneStream.state()` hands it out as it is.

    Args:
        segment: Resets so far.
        network: Recurrent state; None before the first frame of a segment.
        chain: Where the network's current chunk lies.
        odometry: None before the first frame, or when the network gives the pose.
        pair: The image before, for the pair head; None without it.
        tracks: Tracks and the next id.
        world: None before the first frame of a segment.
        log_scale: Running logarithm of the metric scale by depth; None without depth.
        people_scale: Scale by people, see `runtime.scale`.
        people_check: What people say of the scale by depth.
        log_focals: Logarithms of the focal lengths (over the image width) estimated so far.
        input_size: (width, height) of the last frame.
    """

    segment: int = 0
    network: StreamState | None = None
    chain: WorldChain = dataclasses.field(default_factory=WorldChain)
    odometry: OdometryState | None = None
    pair: PairState | None = None
    tracks: TrackerState = TrackerState()
    world: WorldAlignment | None = None
    log_scale: float | None = None
    people_scale: ScaleState = ScaleState()
    people_check: ScaleState = ScaleState()
    log_focals: tuple[float, ...] = ()
    input_size: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True)
class _Dense:
    """Per-pixel results of the network as arrays, metric scale applied."""

    points_camera: NDArray[np.float32]
    confidence: NDArray[np.float32]
    person: NDArray[np.bool_]


class HumanSceneStream:
    """One camera's stream.

    Args:
        network: In eval mode, on its device.
        body_model: What turns parameters into joints.
        config: How to run.
        weights: What `load_network` said about the weights; None for a network made by hand.
        engine: Runs the network's step in its place (`runtime.onnx_engine`); None: the network itself.

    Raises:
        ConfigError: The configuration asks for what the network does not have.
    """

    def __init__(self, network: HumanSceneNetwork, body_model: BodyModel, config: StreamConfig | None = None,
                 weights: CheckpointInfo | None = None, engine: RecurrentStep | None = None) -> None:
        self.network = network
        self.engine: RecurrentStep = network if engine is None else engine
        self.body_model = body_model
        self.weights = weights
        self._device = next(network.parameters()).device
        self._memory = StreamMemory()
        self.config = config or StreamConfig()

    @property
    def config(self) -> StreamConfig:
        """How the stream runs; may be replaced between two steps, the memory stays."""
        return self._config

    @config.setter
    def config(self, config: StreamConfig) -> None:
        heads = self.network.config.pose_head or self.network.config.pair_pose
        if config.camera_pose in ("network", "guarded") and not heads:
            raise ConfigError(f"stream.camera_pose = '{config.camera_pose}', but the network "
                              f"'{self.network.config.name}' has no pose head; use 'auto' or 'odometry'")
        self._config = config
        birth_score = config.min_score or self.network.config.birth_threshold
        track = dataclasses.replace(config.track, birth_score=birth_score)
        self._tracker = Tracker(self.body_model, track, config.smoothing)
        self._odometry = KeyframeOdometry(config.odometry)

    @property
    def device(self) -> str:
        """Where the network runs, torch's name."""
        return str(self._device)

    @property
    def engine_name(self) -> str:
        """What runs the network: "torch" or "onnx"."""
        return "torch" if self.engine is self.network else "onnx"

    @property
    def segment(self) -> int:
        """Resets so far."""
        return self._memory.segment

    def reset(self) -> None:
        """Forget everything but the track numbers already given; the next frame starts a new segment."""
        old = self._memory
        self._memory = StreamMemory(segment=old.segment + 1, tracks=TrackerState(next_id=old.tracks.next_id))

    def state(self) -> StreamMemory:
        """What links the frames, to be given to `load_state` of a stream with the same network."""
        return self._memory

    def load_state(self, state: StreamMemory) -> None:
        """Go on from a state."""
        self._memory = state

    def set_world(self, alignment: WorldAlignment) -> None:
        """Give T_world_origin from outside (TF, IMU) in place of what the first frame would decide."""
        self._memory = dataclasses.replace(self._memory, world=alignment)

    # --- the route -----------------------------------------------------------------------------------------------

    def step(self, frame: CameraFrame) -> SceneEstimate:
        """One frame.

        Args:
            frame: Later than the one before; a stamp that is not gives zero elapsed time.

        Raises:
            ImageError: The image or its depth has an unusable size or type.
            CalibrationError: The camera belongs to another image size.
        """
        clock, memory = _Clock(), self._memory
        with clock("preprocess"):
            placement = self._placement(frame)
            reduced = self._reduced(frame.image, placement)
            image = self._network_image(frame.image, reduced, placement)
            tensor = to_tensor(image, self._device)
            given = None if frame.camera is None else placement.camera(frame.camera)
        with clock("network"):
            output, T_chain, state, chain = self._run_network(tensor, memory, given)
        with clock("dense"):
            camera, dense_camera, log_focals = self._cameras(frame, placement, given, output, memory)
            dense = self._dense(output, tensor.shape[2:])
            scale, log_scale, source = self._scale(frame, camera, dense_camera, dense, memory)
            if source == ScaleSource.NETWORK and self.config.scale_source == "people" and memory.people_scale.reservoir:
                scale, source = memory.people_scale.scale, ScaleSource.BODY_HEIGHT
            if scale != 1.0:
                dense = dataclasses.replace(dense, points_camera=dense.points_camera * np.float32(scale))
        with clock("bodies"):
            # A window head tells distance from size and focal length, whatever the scale of the map.
            windowed = self.network.config.body_head == "window"
            observations = self._observations(output, placement, camera, 1.0 if windowed else scale, tensor.shape[2:])
            # Where they project onto their picture, whatever distance the map or a sensor gives them.
            as_seen = observations if windowed else [_moved(o, 1.0 / scale) for o in observations]
            if source == ScaleSource.DEPTH and frame.depth_m is not None:
                ratios = sensed_ratios(_sampled(frame.depth_m, camera, dense_camera), dense.person, dense_camera,
                                       [o.joints_camera for o in observations])
                observations = [_moved(o, ratio) for o, ratio in zip(observations, ratios, strict=True)]
        with clock("odometry"):
            pair = self._follow_pair(tensor, dense_camera, dense, memory)
            T_origin_camera, status, odometry, dense, ratio = self._camera_pose(
                frame, reduced, camera, dense_camera, dense, T_chain, pair, scale, source, memory)
            if ratio != 1.0:
                observations = observations if windowed else [_moved(o, ratio) for o in observations]
                scale, source = scale * ratio, ScaleSource.ODOMETRY
        if self.config.align_to_surface and observations:
            with clock("surface"):
                observations = self._aligned(observations, frame, camera, dense_camera, dense, source)
        with clock("world"):
            world = memory.world or self._align(dense, observations)
            T_world_camera = world.T_world_origin @ T_origin_camera
        with clock("tracks"):
            tracked, tracks = self._tracker.step(observations, T_world_camera, frame.stamp_ns, memory.tracks)
            bodies = self._body_estimates(tracked, camera)
        with clock("people_scale"):
            by_people, people_scale, people_check = self._scale_by_people(
                frame, camera, dense_camera, dense, source, as_seen, tracked, memory)
        self._memory = StreamMemory(memory.segment, state, chain, odometry, pair, tracks, world, log_scale,
                                    people_scale, people_check, log_focals, placement.input_size)
        return SceneEstimate(
            stamp_ns=frame.stamp_ns, segment=memory.segment, T_world_camera=T_world_camera, camera=camera,
            calibrated=frame.camera is not None, dense_camera=dense_camera, points_camera=dense.points_camera,
            confidence=dense.confidence, colors=image, person=dense.person, bodies=bodies, status=status,
            scale=float(scale), scale_source=source, world_source=world.source, stage_ms=clock.stage_ms,
            scale_by_people=by_people, scale_problem=scale_problem(by_people, source, self.config.people_tolerance))

    def _placement(self, frame: CameraFrame) -> Placement:
        image = frame.image
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ImageError(f"image has shape {image.shape} and type {image.dtype}; expected (H, W, 3) uint8 RGB")
        height, width = image.shape[:2]
        if min(height, width) < MIN_SIDE_PX:
            raise ImageError(f"image has {width}x{height} px; both sides must have at least {MIN_SIDE_PX} px")
        if frame.depth_m is not None and frame.depth_m.shape != (height, width):
            raise ImageError(f"depth image has shape {frame.depth_m.shape}; expected that of the colour image, "
                             f"{(height, width)}")
        return place(width, height, self.network.config.image_width_px)

    def _reduced(self, image: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
        """The image halved as often as leaves enough for the odometry and for plain averaging to the network's size:
        the same averages as at once, which OpenCV computes several times faster, and once for both."""
        least = max(self.config.odometry.image_width_px, 2 * placement.resized_size[0])
        while image.shape[1] % 2 == image.shape[0] % 2 == 0 and image.shape[1] >= 2 * least:
            image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
        return image

    def _network_image(self, image: NDArray[np.uint8], reduced: NDArray[np.uint8],
                       placement: Placement) -> NDArray[np.uint8]:
        """(h, w, 3) uint8. Official weights need the official filter; the small network is trained on renderings,
        to which plain averaging is as near, at a twentieth of the time."""
        if self.network.config.patch_embed == "conv" or max(placement.input_size) < max(placement.resized_size):
            return resize_and_crop(image, placement)
        left, top, right, bottom = placement.box
        resized = cv2.resize(reduced, placement.resized_size, interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(resized[top:bottom, left:right])

    def _run_network(self, tensor: torch.Tensor, memory: StreamMemory, given: PinholeCamera | None,
                     ) -> tuple[NetworkOutput, NDArray[np.float64] | None, StreamState, WorldChain]:
        mixed = torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")
        with torch.inference_mode(), mixed:
            output, T_world_camera, state, chain = step_in_chunks(
                self.engine, tensor, memory.network, memory.chain, reset_interval=self.config.reset_interval,
                camera_K=None if given is None else given.K, outputs=PRODUCT_OUTPUTS)
        if not bool(torch.isfinite(state.tokens).all()):
            # One poisoned frame must not poison all later ones.
            logger.warning("the network's memory is not finite; it starts afresh")
            state = dataclasses.replace(self.network.initial_state(), bank=state.bank)
        return output, T_world_camera, state, chain

    def _cameras(self, frame: CameraFrame, placement: Placement, given: PinholeCamera | None, output: NetworkOutput,
                 memory: StreamMemory) -> tuple[PinholeCamera, PinholeCamera, tuple[float, ...]]:
        """Intrinsics of the input image and of the dense maps; a guess when the frame has none."""
        if frame.camera is not None and given is not None:
            return frame.camera, given, memory.log_focals
        width, height = placement.size
        config, log_focals = self.network.config, memory.log_focals
        if config.dense == "ray_depth":
            # What the network assumed when it got no intrinsics; its points lie on exactly these rays.
            f = config.canonical_focal * config.image_width_px
            dense_camera = PinholeCamera(width, height, f, f, (width - 1) / 2, (height - 1) / 2)
        else:
            if memory.input_size not in ((0, 0), placement.input_size):
                log_focals = ()
            if len(log_focals) < FOCAL_FRAMES:
                f = estimate_focal(output.pts3d_in_self_view[0])
                if 0.2 * width < f < 20.0 * width:
                    log_focals = (*log_focals, float(np.log(f / width)))
            f = width * float(np.exp(np.median(log_focals))) if log_focals else config.canonical_focal * width
            dense_camera = PinholeCamera(width, height, f, f, width // 2, height // 2)
        left, top = placement.box[:2]
        whole = dense_camera.cropped(-left, -top, *placement.resized_size)
        return whole.resized(*placement.input_size), dense_camera, log_focals

    def _dense(self, output: NetworkOutput, size: tuple[int, int]) -> _Dense:
        points = output.pts3d_in_self_view[0].float().cpu().numpy()
        confidence = output.conf_self[0].float().cpu().numpy()
        if not np.isfinite(confidence).all():
            confidence = np.nan_to_num(confidence, nan=1.0, posinf=1e6)
        with np.errstate(invalid="ignore"):  # a sum is finite where all its terms are, and much faster to ask
            known = np.isfinite(points[..., 0] + points[..., 1] + points[..., 2]) & (points[..., 2] > 0.0)
        if not known.all():
            points = np.where(known[..., None], points, np.float32(np.nan))
        if output.msk is None:
            return _Dense(points, confidence, np.zeros(points.shape[:2], bool))
        probability = self.network.mask_in_network(output.msk[..., 0], size)[0].float().cpu().numpy()
        # The official display uses 0.1; a mask trained with balanced loss is meant at one half.
        own = 0.5 if self.network.config.backbone.kind == "pyramid" else 0.1
        return _Dense(points, confidence, probability > (self.config.mask_threshold or own))

    def _scale(self, frame: CameraFrame, camera: PinholeCamera, dense_camera: PinholeCamera, dense: _Dense,
               memory: StreamMemory) -> tuple[float, float | None, ScaleSource]:
        """Metric factor by the depth sensor: median ratio over the background, averaged over time."""
        if not self.config.use_depth or frame.depth_m is None or self.config.scale_source == "network":
            if memory.log_scale is None or self.config.scale_source == "network":
                return 1.0, memory.log_scale, ScaleSource.NETWORK
            return float(np.exp(memory.log_scale)), memory.log_scale, ScaleSource.DEPTH
        sensor = _sampled(frame.depth_m, camera, dense_camera)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = sensor / dense.points_camera[..., 2]
        usable = np.isfinite(ratio) & (ratio > 0.0) & ~dense.person
        if int(usable.sum()) < 100:
            if memory.log_scale is None:
                return 1.0, None, ScaleSource.NETWORK
            return float(np.exp(memory.log_scale)), memory.log_scale, ScaleSource.DEPTH
        now = float(np.log(np.clip(np.median(ratio[usable]), 0.05, 20.0)))
        share = self.config.depth_scale_ema
        log_scale = now if memory.log_scale is None else (1.0 - share) * memory.log_scale + share * now
        return float(np.exp(log_scale)), log_scale, ScaleSource.DEPTH

    def _scale_by_people(self, frame: CameraFrame, camera: PinholeCamera, dense_camera: PinholeCamera, dense: _Dense,
                         source: ScaleSource, as_seen: list[Observation], tracked: list[TrackedBody],
                         memory: StreamMemory) -> tuple[ScaleEstimate | None, ScaleState, ScaleState]:
        """What people say of the scale of this frame, and the memory's two states after it.

        The next frame's map takes its scale from the first, where that is asked for and no sensor knows better; the
        second only watches a sensor.
        """
        sensed = source == ScaleSource.DEPTH
        if not sensed and self.config.scale_source != "people":
            return None, memory.people_scale, memory.people_check
        known = {b.observation: b.track.track_id for b in tracked if b.observation is not None}
        sure = [i for i, o in enumerate(as_seen) if i in known and o.score >= self._tracker.config.birth_score]
        people, seen = [known[i] for i in sure], [as_seen[i] for i in sure]
        depth_m = dense.points_camera[..., 2]
        if sensed:
            depth_m = np.zeros_like(depth_m) if frame.depth_m is None else _sampled(frame.depth_m, camera, dense_camera)
        samples, weights = people_samples(depth_m, dense.person, dense_camera, camera,
                                          [o.joints_camera for o in seen], [o.score for o in seen])
        if sensed:
            estimate, state = SCALE_CHECK.step(samples, weights, people, memory.people_check)
            return estimate, memory.people_scale, state
        estimate, state = SCALE_FILTER.step(
            samples, weights, people, memory.people_scale, lambda factor: surfaces_support(factor, body_surfaces(
                self.body_model, dense.points_camera, dense.person, dense_camera, seen)))
        return estimate, state, memory.people_check

    def _observations(self, output: NetworkOutput, placement: Placement, camera: PinholeCamera, scale: float,
                      size: tuple[int, int]) -> list[Observation]:
        """The frame's bodies in the camera frame, best first, without duplicates."""
        scores = output.detection_score[0].float().cpu().numpy()
        order = np.argsort(-scores, kind="stable")
        if not len(order):
            return []
        arrays = {name: getattr(output, name)[0].float().cpu().numpy()
                  for name in ("smpl_rotmat", "smpl_shape", "smpl_expression", "smpl_transl")}
        heads = arrays["smpl_transl"].astype(np.float64) * scale
        identities = output.smpl_id[0].cpu().numpy()
        windowed = self.network.config.body_head == "window"
        finite = np.isfinite(sum(a.reshape(len(a), -1).sum(axis=1, dtype=np.float64) for a in arrays.values()))
        chosen: list[int] = []
        for i in order[:len(order) if self.config.max_people else 0]:
            if finite[i] and heads[i, 2] > 0.05 and not any(self._same_head(heads[i], heads[j]) for j in chosen):
                chosen.append(int(i))
                if len(chosen) == self.config.max_people:
                    break
        betas, expression = arrays["smpl_shape"][chosen], arrays["smpl_expression"][chosen]
        rotations, joints = people_from_network(self.body_model, arrays["smpl_rotmat"][chosen], betas, expression,
                                                heads[chosen])
        # The window head refines the head's place: its translation projects to it. The official translation is for a
        # camera of its own; there the detector's location is the truth in the picture.
        if windowed:
            heads_px = camera.project(heads[chosen])
        else:
            seen = self.network.to_network_px(output.smpl_loc, size)[0].float().cpu().numpy()
            heads_px = placement.to_input_px(seen[chosen])
        heads_px = heads_px.astype(np.float32)
        return [Observation(rotations[k], betas[k], expression[k], joints[k], float(scores[i]), heads_px[k],
                            None if windowed else int(identities[i])) for k, i in enumerate(chosen)]

    def _aligned(self, observations: list[Observation], frame: CameraFrame, camera: PinholeCamera,
                 dense_camera: PinholeCamera, dense: _Dense, source: ScaleSource) -> list[Observation]:
        """The bodies at the surface that a depth sensor, or else the map, shows of them."""
        points = dense.points_camera
        if source == ScaleSource.DEPTH and frame.depth_m is not None:
            points = dense_camera.unproject_depth(_sampled(frame.depth_m, camera, dense_camera))
        ratios = surface_ratios(self.body_model, points, dense.person, dense_camera, observations)
        return [_moved(o, ratio) for o, ratio in zip(observations, ratios, strict=True)]

    def _same_head(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
        """Whether two heads coincide as seen from the camera, whatever their distances."""
        nearer = min(a[2], b[2])
        apart = np.linalg.norm((a[:2] / a[2] - b[:2] / b[2]) * nearer)
        return bool(apart < self.config.duplicate_distance_m)

    def _follow_pair(self, image: torch.Tensor, camera: PinholeCamera, dense: _Dense,
                     memory: StreamMemory) -> PairState | None:
        """The pair head's state after this image, where its motion is wanted and the network has no pose head."""
        config = self.network.config
        if config.pose_head or not config.pair_pose or self.config.camera_pose not in ("network", "guarded"):
            return None
        return follow(self.network.pair_pose, image, camera, dense.points_camera[..., 2], _dilated(dense.person),
                      memory.pair)

    def _camera_pose(self, frame: CameraFrame, reduced: NDArray[np.uint8], camera: PinholeCamera,
                     dense_camera: PinholeCamera, dense: _Dense, T_chain: NDArray[np.float64] | None,
                     pair: PairState | None, scale: float, source: ScaleSource, memory: StreamMemory,
                     ) -> tuple[NDArray[np.float64], TrackingStatus, OdometryState | None, _Dense, float]:
        """T_origin_camera, its status, the odometry's state, the dense maps and the factor applied to them."""
        way = self.config.camera_pose
        if way == "static":
            return np.eye(4), TrackingStatus.OK, memory.odometry, dense, 1.0
        if T_chain is not None and way in ("auto", "network"):
            T_origin_camera = T_chain.copy()
            T_origin_camera[:3, 3] *= scale
            if np.isfinite(T_origin_camera).all():
                return T_origin_camera, TrackingStatus.OK, None, dense, 1.0
            return np.eye(4), TrackingStatus.LOST, None, dense, 1.0
        if pair is not None and way == "network":
            return pair.hint.T_hint_camera, TrackingStatus.OK, None, dense, 1.0
        sensed = frame.depth_m if source == ScaleSource.DEPTH else None
        depth, depth_camera = (dense.points_camera[..., 2], dense_camera) if sensed is None else (sensed, camera)
        people = _dilated(dense.person)
        if sensed is not None:
            people = _sampled(people.astype(np.uint8), dense_camera, camera) > 0
        hint = frame.pose_hint
        if hint is None and way == "guarded" and T_chain is not None and np.isfinite(T_chain).all():
            T_scaled = T_chain.copy()
            T_scaled[:3, 3] *= scale
            hint = PoseHint(T_scaled, *GUARD_NOISE)
        if hint is None and pair is not None:
            hint = pair.hint
        rescale = self.config.scale_source == "odometry" and sensed is None
        result, state = self._odometry.step(
            reduced, camera.resized(reduced.shape[1], reduced.shape[0]), frame.stamp_ns, depth, depth_camera, people,
            memory.odometry, trust_depth_scale=sensed is not None, compare_depth=rescale, hint=hint)
        ratio = 1.0
        if rescale and np.isfinite(result.depth_ratio):
            ratio = float(np.clip(result.depth_ratio, 0.5, 2.0))
            dense = dataclasses.replace(dense, points_camera=dense.points_camera * np.float32(ratio))
        return result.T_origin_camera, result.status, state, dense, ratio

    def _align(self, dense: _Dense, observations: list[Observation]) -> WorldAlignment:
        if self.config.world == "level":
            return level_world()
        return align_world(dense.points_camera, ~_dilated(dense.person), [o.joints_camera for o in observations])

    def _body_estimates(self, tracked: list[TrackedBody], camera: PinholeCamera) -> tuple[BodyEstimate, ...]:
        if not tracked:
            return ()
        estimates = []
        boxes = _bounding_boxes(np.array([b.joints_camera[:BODY_JOINTS] for b in tracked]), camera)
        heights_m = standing_height(self.body_model, np.array([b.parameters.betas for b in tracked]))
        for body, box, height_m in zip(tracked, boxes, heights_m.tolist(), strict=True):
            track, points, seen = body.track, body.joints_camera, body.time_since_update_s == 0.0
            uv = track.head_uv_px if seen else camera.project(points[HEAD])
            estimates.append(BodyEstimate(
                track_id=track.track_id, track_state=track.state, track_age=track.age,
                time_since_update_s=body.time_since_update_s, score=track.score, parameters=body.parameters,
                joints_camera=points.astype(np.float32), head_uv_px=np.asarray(uv, np.float32),
                bbox_px=box, height_m=height_m, velocity_world=body.velocity_world))
        return tuple(estimates)


class _Clock:
    """Times named stages in milliseconds."""

    def __init__(self) -> None:
        self.stage_ms: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.stage_ms[name] = (time.perf_counter() - began) * 1e3


def _moved(observation: Observation, ratio: float) -> Observation:
    """The body moved along its head's ray."""
    by = (observation.joints_camera[HEAD] * (ratio - 1.0)).astype(np.float32)
    return dataclasses.replace(observation, joints_camera=observation.joints_camera + by)


def _sampled(values: NDArray, camera: PinholeCamera, target: PinholeCamera) -> NDArray:
    """A map of `camera` looked up at the pixels of `target` (same optical centre); 0 outside."""
    sx, sy = camera.fx / target.fx, camera.fy / target.fy
    to_source = np.array([[sx, 0.0, camera.cx - target.cx * sx], [0.0, sy, camera.cy - target.cy * sy]])
    return cv2.warpAffine(values, to_source, (target.width, target.height),
                          flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask grown by about 2 % of its width: outlines of people are never exact."""
    radius = max(1, round(0.02 * mask.shape[1]))
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


def _bounding_boxes(joints_camera: NDArray[np.floating], camera: PinholeCamera) -> NDArray[np.float32]:
    """(P, 4) x, y, width, height around the (P, J, 3) projected joints with flesh around them, clipped to the image;
    NaN when a body is out of view."""
    uv = camera.project(joints_camera.astype(np.float64))
    outside = ~np.isfinite(uv).all(axis=-1, keepdims=True)
    margin = 0.12 * camera.fx / np.maximum(joints_camera[..., 2:], 0.1)
    limit = (camera.width - 1, camera.height - 1)
    low = np.clip(np.where(outside, np.inf, uv - margin).min(axis=1), 0, limit)
    high = np.clip(np.where(outside, -np.inf, uv + margin).max(axis=1), 0, limit)
    boxes = np.concatenate([low, high - low], axis=1)
    boxes[(high <= low).any(axis=1)] = np.nan
    return boxes.astype(np.float32)
