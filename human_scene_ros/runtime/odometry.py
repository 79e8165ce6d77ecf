"""Keyframe odometry: the camera's motion from tracked corners and the depth of a keyframe.

Corners of a keyframe (on pixels that are no person) are followed into each frame by pyramidal
Lucas-Kanade, forward and backward; their depth in the keyframe, from the network or from a depth sensor,
makes them 3-D, and the pose of the frame follows from perspective-n-point. Depth of a small network is
wrong by tens of percent per point, so the depths are estimated along with the pose, each with its prior
and eliminated point by point (two-view bundle adjustment; Triggs et al. 2000, section 6): without it,
noise in depth turns half of a translation into rotation.

Everything is relative to "origin", the optical frame of the first image. The state is passed in and
returned, never changed; its size is bounded. No ROS, no torch.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.arrays import check_shape
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert, make_transform, orthonormal
from human_scene_ros.scene import PoseHint, TrackingStatus

Array = NDArray[np.float64]

# Grey value -> its logarithm from 0 to 255, in 128ths: whole numbers are averaged twice as fast.
_LOG_GRAY = np.rint(np.log1p(np.arange(256) / 8.0) * (128 * 255.0 / np.log1p(255.0 / 8.0))).astype(np.uint16)
NEAR_LEVELS, FAR_LEVELS = 1, 4  # each doubles how far a corner may be from where it is expected


@dataclasses.dataclass(frozen=True)
class OdometryConfig:
    """How the camera is tracked. Pixel values refer to the grey image of width `image_width_px`.

    Args:
        image_width_px: Width of the grey image in which corners are tracked; wider inputs are shrunk.
        max_corners: Corners per keyframe.
        min_corners: Fewer corners on a new keyframe, or fewer inliers, give no pose (LOW_TEXTURE, LOST).
        corner_quality: Smallest corner strength relative to the strongest.
        corner_distance_px: Smallest distance between two corners.
        window_px: Side of the Lucas-Kanade window.
        max_forward_backward_px: A track whose way back misses its start by more is dropped.
        tracking_noise_px: Standard deviation of a good track.
        depth_noise: Relative standard deviation of a network's depth per point.
        sensor_depth_noise: The same of depth whose scale is trusted.
        min_inlier_fraction: A new keyframe is made when fewer inliers are left of the most that the keyframe had.
        still_px: Median displacement below which the camera has not moved; its pose then stays as it is.
        acceleration: Standard deviation of what the camera does, m/s^2, with depth of 10 % noise: decides where the
            picture alone cannot tell a small turn from a small step. Less is believed of steps where depth is worse.
        turn_acceleration: The same of its turning, rad/s^2.
        max_hold_s: Constant velocity is assumed no longer than this when tracking fails.
        velocity_kept: Share of the last velocity that the next frame is expected to have. Where a step looks like
            a turn (a distant or flat scene), an expected step would confirm itself for ever; this lets it fade.
        max_keyframes: Old keyframes kept, to return to instead of starting a new one.
        carry_scale: 1: depth of a new keyframe is scaled to agree with the old keyframe's points; 0: it is
            taken as it comes; between: geometric mixture.
    """

    image_width_px: int = 320
    max_corners: int = 160
    min_corners: int = 12
    corner_quality: float = 0.01
    corner_distance_px: float = 8.0
    window_px: int = 16  # OpenCV takes 8 columns at a time: 16 are faster than 13 or 15
    max_forward_backward_px: float = 0.5
    tracking_noise_px: float = 0.3
    depth_noise: float = 0.2
    sensor_depth_noise: float = 0.03
    min_inlier_fraction: float = 0.7
    still_px: float = 0.2
    acceleration: float = 2.0
    turn_acceleration: float = 6.0
    max_hold_s: float = 0.5
    velocity_kept: float = 0.7
    max_keyframes: int = 4
    carry_scale: float = 0.7

    def __post_init__(self) -> None:
        for name, low, high in (("image_width_px", 32, 4096), ("max_corners", 8, 5000), ("min_corners", 6, 1000),
                                ("corner_quality", 1e-6, 1.0), ("corner_distance_px", 1.0, 100.0),
                                ("window_px", 5, 61), ("max_forward_backward_px", 0.01, 100.0),
                                ("tracking_noise_px", 0.01, 100.0), ("depth_noise", 0.0, 10.0),
                                ("sensor_depth_noise", 0.0, 10.0),
                                ("min_inlier_fraction", 0.0, 1.0), ("still_px", 0.0, 10.0),
                                ("acceleration", 1e-3, 1e4), ("turn_acceleration", 1e-3, 1e4),
                                ("max_hold_s", 0.0, 60.0), ("velocity_kept", 0.0, 1.0),
                                ("max_keyframes", 1, 100), ("carry_scale", 0.0, 1.0)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"odometry.{name} = {value}: must be in [{low}, {high}]")


@dataclasses.dataclass(frozen=True)
class Keyframe:
    """A grey image with corners whose place in space is known.

    Args:
        gray: (h, w) uint8.
        contrast: (h, w) uint8, what is followed: brightness relative to the surroundings.
        uv_px: (N, 2) float32 corners.
        points_keyframe: (N, 3) metres, the keyframe's optical frame, scaled by `scale`.
        depth_noise: Relative standard deviation of their depth.
        T_origin_keyframe: (4, 4).
        scale: Factor that was applied to the depth of this keyframe.
        number: Counts keyframes since the start.
        support: Most inliers that a later frame had; corners in noise never are.
    """

    gray: NDArray[np.uint8]
    contrast: NDArray[np.uint8]
    uv_px: NDArray[np.float32]
    points_keyframe: Array
    depth_noise: float
    T_origin_keyframe: Array
    scale: float
    number: int
    support: int = 0


@dataclasses.dataclass(frozen=True)
class OdometryState:
    """What the next step needs. `None` in place of a state starts a new trajectory.

    Args:
        stamp_ns: Stamp of the last frame.
        camera: Intrinsics of the last grey image.
        T_origin_camera: (4, 4) last pose.
        rotation_rate: (3,) rad/s, camera frame.
        velocity: (3,) m/s, camera frame.
        keyframes: The current one first.
        still_uv_px: (N, 2) where the current keyframe's corners were when the pose last changed; NaN = unknown.
        keyframes_made: Keyframes since the start.
        measured_ns: Stamp of the last frame whose pose was measured.
        T_hint_camera: (4, 4) the hint of the last frame; None without.
    """

    stamp_ns: int
    camera: PinholeCamera
    T_origin_camera: Array
    rotation_rate: Array
    velocity: Array
    keyframes: tuple[Keyframe, ...]
    still_uv_px: NDArray[np.float32]
    keyframes_made: int
    measured_ns: int
    T_hint_camera: Array | None = None


@dataclasses.dataclass(frozen=True)
class OdometryResult:
    """One frame's pose.

    Args:
        T_origin_camera: (4, 4) pose in the optical frame of the first image.
        status: OK, LOW_TEXTURE (nothing to track; pose held) or LOST (tracking failed; pose extrapolated).
        inliers: Corners that agree with the pose.
        tracked: Corners that were followed into this frame.
        new_keyframe: This frame became a keyframe.
        moved: False when the image stood still and the pose was kept.
        scale: Factor on the depth of the current keyframe, see `OdometryConfig.carry_scale`.
        depth_ratio: Median of (distance by the keyframe / depth given now) over the inliers; NaN if unknown or not
            asked for.
    """

    T_origin_camera: Array
    status: TrackingStatus
    inliers: int
    tracked: int
    new_keyframe: bool
    moved: bool
    scale: float
    depth_ratio: float


class KeyframeOdometry:
    """`step(image, camera, depth, ...) -> (result, state)`; holds nothing but its configuration."""

    def __init__(self, config: OdometryConfig | None = None) -> None:
        self.config = config or OdometryConfig()

    def step(self, image: NDArray[np.uint8], camera: PinholeCamera, stamp_ns: int, depth_m: NDArray[np.floating],
             depth_camera: PinholeCamera, people: NDArray[np.bool_] | None = None,
             state: OdometryState | None = None, *, trust_depth_scale: bool = False, compare_depth: bool = False,
             hint: PoseHint | None = None) -> tuple[OdometryResult, OdometryState]:
        """Pose of one frame.

        Args:
            image: (H, W, 3) uint8 RGB or (H, W) grey.
            camera: Intrinsics of `image`.
            stamp_ns: Its stamp.
            depth_m: (h, w) metres along z of the same moment; 0 or NaN where unknown.
            depth_camera: Intrinsics of `depth_m`: same optical centre, any size and crop.
            people: (h, w) True on people, who move; None without.
            state: What the previous step returned; None starts at the identity.
            trust_depth_scale: The depth is metric (a sensor): never rescale it to older keyframes.
            compare_depth: Find `depth_ratio` for every frame that moves, not for new keyframes alone.
            hint: Where something else says the camera is. From the second one on it is the expected motion in place
                of constant velocity, for as long as tracking fails.

        Raises:
            ShapeError: An array does not fit its camera.
        """
        check_shape("image", image[..., 0] if image.ndim == 3 else image, (camera.height, camera.width))
        check_shape("depth_m", depth_m, (depth_camera.height, depth_camera.width))
        if people is not None:
            check_shape("people", people, (depth_camera.height, depth_camera.width))
        gray, gray_camera = self._gray(image, camera)
        depth = _DepthLookup(np.asarray(depth_m), depth_camera, people)
        view = _View(gray, _contrast(gray), gray_camera, stamp_ns, depth, trust_depth_scale, compare_depth)
        result, state = self._start(view) if state is None else self._go_on(view, state, hint)
        return result, dataclasses.replace(state, T_hint_camera=None if hint is None else hint.T_hint_camera)

    def _go_on(self, view: _View, state: OdometryState,
               hint: PoseHint | None) -> tuple[OdometryResult, OdometryState]:
        predicted, prior_noise = self._predict(state, view.stamp_ns, hint)
        if not state.keyframes or _differs(view.camera, state.camera):
            # Corners of another image size or lens cannot be followed; the pose is carried over.
            return self._rekey(view, state, predicted, TrackingStatus.LOST)
        return self._track(view, state, predicted, prior_noise)

    def _gray(self, image: NDArray[np.uint8], camera: PinholeCamera) -> tuple[NDArray[np.uint8], PinholeCamera]:
        width = min(self.config.image_width_px, camera.width)
        height = max(1, round(camera.height * width / camera.width))
        if image.ndim == 3:  # before shrinking: one channel instead of three
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if (width, height) != (camera.width, camera.height):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        # Noise has corners too; a pixel of blur takes most of them away and moves the true ones little.
        return cv2.GaussianBlur(image, (5, 5), 1.0), camera.resized(width, height)

    def _start(self, view: _View) -> tuple[OdometryResult, OdometryState]:
        keyframe = self._make_keyframe(view, np.eye(4), 1.0, 0)
        corners = len(keyframe.uv_px)
        enough = corners >= self.config.min_corners
        state = OdometryState(view.stamp_ns, view.camera, np.eye(4), np.zeros(3), np.zeros(3),
                              (keyframe,) if enough else (), keyframe.uv_px, int(enough), view.stamp_ns)
        status = TrackingStatus.OK if enough else TrackingStatus.LOW_TEXTURE
        return OdometryResult(np.eye(4), status, corners, corners, enough, False, 1.0, float("nan")), state

    def _predict(self, state: OdometryState, stamp_ns: int,
                 hint: PoseHint | None) -> tuple[Array, tuple[float, float]]:
        """T_origin_camera at `stamp_ns` and its standard deviations (radians, metres).

        By the hint's motion, else by constant velocity, no further than `max_hold_s` from a measurement.
        """
        c = self.config
        if hint is not None and state.T_hint_camera is not None:
            T_last_now = invert(state.T_hint_camera) @ hint.T_hint_camera
            return state.T_origin_camera @ T_last_now, (hint.rotation_noise, hint.translation_noise_m)
        last = min(state.stamp_ns, stamp_ns)
        limit_ns = state.measured_ns + int(c.max_hold_s * 1e9)
        dt_s = max(0.0, (min(stamp_ns, limit_ns) - last) * 1e-9)
        T_last_now = make_transform(cv2.Rodrigues(state.rotation_rate * dt_s)[0],
                                    c.velocity_kept * state.velocity * dt_s)
        # What a frame may differ from the prediction; more when the last ones were not measured.
        since_s = min(max((stamp_ns - state.measured_ns) * 1e-9, 0.03), 10.0)
        doubt = (state.keyframes[0].depth_noise if state.keyframes else c.depth_noise) / 0.1
        return (state.T_origin_camera @ T_last_now,
                (c.turn_acceleration * since_s ** 2, c.acceleration / max(doubt, 0.1) * since_s ** 2))

    def _make_keyframe(self, view: _View, T_origin_keyframe: Array, scale: float, number: int) -> Keyframe:
        c = self.config
        corners = cv2.goodFeaturesToTrack(view.contrast, c.max_corners, c.corner_quality, c.corner_distance_px,
                                          mask=view.depth.usable_mask(view.camera))
        uv = np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2).astype(np.float32)
        z = view.depth.at(uv, view.camera) * scale
        known = np.isfinite(z)
        uv, z = uv[known], z[known]
        points = view.camera.unproject(uv.astype(np.float64), z).astype(np.float64, copy=False)
        noise = c.sensor_depth_noise if view.trusted else c.depth_noise
        return Keyframe(view.gray, view.contrast, uv, points, noise, T_origin_keyframe, scale, number)

    def _follow(self, uv_px: NDArray[np.float32], before: NDArray[np.uint8], now: NDArray[np.uint8],
                guess_px: NDArray[np.float32], levels: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(N, 2) places in `now` of corners of `before`, looked for on so many more levels of the pyramid, and which of
        them can be believed."""
        c = self.config
        options = {"winSize": (c.window_px, c.window_px), "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
                   "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.03)}
        start = uv_px.reshape(-1, 1, 2)
        there, found, _ = cv2.calcOpticalFlowPyrLK(before, now, start, guess_px.reshape(-1, 1, 2).copy(),
                                                   maxLevel=levels, **options)
        # The way back begins at its end and need not see far.
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(now, before, there, start.copy(), maxLevel=1, **options)
        height, width = now.shape
        uv = there.reshape(-1, 2)
        good = (found.ravel() > 0) & (found_back.ravel() > 0)
        good &= np.square(back - start).sum(axis=-1).ravel() < c.max_forward_backward_px ** 2
        good &= (uv[:, 0] >= 0) & (uv[:, 1] >= 0) & (uv[:, 0] <= width - 1) & (uv[:, 1] <= height - 1)
        return uv, good

    def _guess(self, keyframe: Keyframe, camera: PinholeCamera, T_origin_camera: Array) -> NDArray[np.float32]:
        """Where the keyframe's corners should be seen from a pose; their own place where that is nowhere."""
        T_camera_keyframe = invert(T_origin_camera) @ keyframe.T_origin_keyframe
        uv = camera.project(apply(T_camera_keyframe, keyframe.points_keyframe))
        inside = np.isfinite(uv).all(-1) & (np.abs(uv) < 4 * camera.width).all(-1)
        return np.where(inside[:, None], uv, keyframe.uv_px).astype(np.float32)

    def _locate(self, keyframe: Keyframe, view: _View, T_origin_predicted: Array,
                prior_noise: tuple[float, float]) -> _Fix:
        """One frame against one keyframe."""
        guess_px = self._guess(keyframe, view.camera, T_origin_predicted)
        uv, good = self._follow(keyframe.uv_px, keyframe.contrast, view.contrast, guess_px, NEAR_LEVELS)
        if 2 * int(good.sum()) < len(good):  # the guess may be far off: look farther, by what can be seen from afar
            uv, good = self._follow(keyframe.uv_px, keyframe.gray, view.gray, guess_px, FAR_LEVELS)
        good &= ~view.depth.people_at(uv, view.camera)
        inliers = np.zeros_like(good)
        if int(good.sum()) < self.config.min_corners:
            return _Fix(keyframe, T_origin_predicted, inliers, good, uv)
        T_camera_keyframe, agree = solve_pose(
            keyframe.points_keyframe[good], uv[good].astype(np.float64), view.camera,
            invert(T_origin_predicted) @ keyframe.T_origin_keyframe,
            self.config.tracking_noise_px, keyframe.depth_noise, prior_noise=prior_noise)
        inliers[np.flatnonzero(good)[agree]] = True
        return _Fix(keyframe, orthonormal(keyframe.T_origin_keyframe @ invert(T_camera_keyframe)), inliers, good, uv)

    def _track(self, view: _View, state: OdometryState, predicted: Array,
               prior_noise: tuple[float, float]) -> tuple[OdometryResult, OdometryState]:
        c = self.config
        fix = self._locate(state.keyframes[0], view, predicted, prior_noise)
        shift = np.linalg.norm(fix.uv_px - state.still_uv_px, axis=1)
        shift = shift[fix.tracked & np.isfinite(shift)]
        if len(shift) >= c.min_corners and _middle(shift) < c.still_px:
            state = dataclasses.replace(state, stamp_ns=view.stamp_ns, rotation_rate=np.zeros(3),
                                        velocity=np.zeros(3), measured_ns=view.stamp_ns)
            return OdometryResult(state.T_origin_camera, TrackingStatus.OK, len(shift), int(fix.tracked.sum()),
                                  False, False, fix.keyframe.scale, float("nan")), state
        if fix.count < max(c.min_corners, c.min_inlier_fraction * fix.keyframe.support):
            fix = self._return_to_old_keyframe(view, state, fix, predicted, prior_noise)
        if fix.count < c.min_corners:
            return self._rekey(view, state, predicted, TrackingStatus.LOST, fix)
        state = self._moved_to(state, fix.T_origin_camera, view.stamp_ns)
        if fix.count < c.min_inlier_fraction * fix.keyframe.support:
            return self._rekey(view, state, fix.T_origin_camera, TrackingStatus.OK, fix)
        current = dataclasses.replace(fix.keyframe, support=max(fix.keyframe.support, fix.count))
        order = (current, *(k for k in state.keyframes if k is not fix.keyframe))
        state = dataclasses.replace(state, keyframes=order,
                                    still_uv_px=np.where(fix.tracked[:, None], fix.uv_px, np.nan))
        ratio = self._depth_ratio(fix, view) if view.compared else float("nan")
        return OdometryResult(fix.T_origin_camera, TrackingStatus.OK, fix.count, int(fix.tracked.sum()), False, True,
                              fix.keyframe.scale, ratio), state

    def _return_to_old_keyframe(self, view: _View, state: OdometryState, fix: _Fix, predicted: Array,
                                prior_noise: tuple[float, float]) -> _Fix:
        """The fix against an older keyframe that is well in view again, else the given one."""
        c = self.config
        near = fix.T_origin_camera if fix.count >= c.min_corners else predicted
        for keyframe in state.keyframes[1:]:
            if self._overlaps(keyframe, view.camera, near):
                other = self._locate(keyframe, view, near, prior_noise)
                # Some margin, or the two keyframes would take turns.
                if other.count >= max(c.min_corners, 1.25 * c.min_inlier_fraction * keyframe.support):
                    return other
        return fix

    def _overlaps(self, keyframe: Keyframe, camera: PinholeCamera, T_origin_camera: Array) -> bool:
        """Whether half of an old keyframe's corners should be in view."""
        T_camera_keyframe = invert(T_origin_camera) @ keyframe.T_origin_keyframe
        uv = camera.project(apply(T_camera_keyframe, keyframe.points_keyframe))
        with np.errstate(invalid="ignore"):
            inside = (uv >= 0).all(-1) & (uv[:, 0] < camera.width) & (uv[:, 1] < camera.height)
        return int(inside.sum()) >= max(self.config.min_corners, len(uv) // 2)

    def _depth_ratio(self, fix: _Fix, view: _View) -> float:
        """Median of the distance that the keyframe's points have now over the depth given now."""
        T_camera_keyframe = invert(fix.T_origin_camera) @ fix.keyframe.T_origin_keyframe
        z_keyframe = apply(T_camera_keyframe, fix.keyframe.points_keyframe[fix.inliers])[:, 2]
        z_now = view.depth.at(fix.uv_px[fix.inliers], view.camera)
        known = np.isfinite(z_now) & (z_keyframe > 1e-3)
        if int(known.sum()) < self.config.min_corners:
            return float("nan")
        return float(np.median(z_keyframe[known] / z_now[known]))

    def _moved_to(self, state: OdometryState, T_origin_camera: Array, stamp_ns: int) -> OdometryState:
        """The state with a measured pose and the velocity that it implies."""
        dt_s = (stamp_ns - state.stamp_ns) * 1e-9
        rate, velocity = np.zeros(3), np.zeros(3)
        if 1e-4 < dt_s <= 2.0 * self.config.max_hold_s and state.measured_ns == state.stamp_ns:
            T_last_now = invert(state.T_origin_camera) @ T_origin_camera
            # Half of the new, half of the old: a single difference is noise twice.
            rate = 0.5 * (state.rotation_rate + cv2.Rodrigues(T_last_now[:3, :3])[0].ravel() / dt_s)
            velocity = 0.5 * (state.velocity + T_last_now[:3, 3] / dt_s)
        return dataclasses.replace(state, stamp_ns=stamp_ns, measured_ns=stamp_ns, T_origin_camera=T_origin_camera,
                                   rotation_rate=rate, velocity=velocity)

    def _rekey(self, view: _View, state: OdometryState, T_origin_camera: Array, status: TrackingStatus,
               fix: _Fix | None = None) -> tuple[OdometryResult, OdometryState]:
        """Make this frame the keyframe at the given pose; without corners the old keyframes stay."""
        c = self.config
        T_origin_camera = orthonormal(T_origin_camera)  # one that is predicted again and again drifts
        scale = state.keyframes[0].scale if state.keyframes else 1.0
        ratio = float("nan")
        if fix is not None and fix.count >= c.min_corners:
            ratio = self._depth_ratio(fix, view)
            if np.isfinite(ratio):
                scale = float(np.clip(ratio ** c.carry_scale, 0.2, 5.0))
        if view.trusted:
            scale = 1.0
        keyframe = self._make_keyframe(view, T_origin_camera, scale, state.keyframes_made)
        keyframes = () if _differs(view.camera, state.camera) else state.keyframes
        made, still = state.keyframes_made, state.still_uv_px
        usable = len(keyframe.uv_px) >= c.min_corners
        if usable:
            keyframes = (keyframe, *keyframes)[:c.max_keyframes]
            made, still = made + 1, keyframe.uv_px
        elif status == TrackingStatus.LOST:
            status = TrackingStatus.LOW_TEXTURE
        if not keyframes:
            still = np.zeros((0, 2), np.float32)
        state = dataclasses.replace(state, stamp_ns=view.stamp_ns, camera=view.camera, T_origin_camera=T_origin_camera,
                                    keyframes=keyframes, still_uv_px=still, keyframes_made=made)
        inliers, tracked = (fix.count, int(fix.tracked.sum())) if fix is not None else (0, 0)
        return OdometryResult(T_origin_camera, status, inliers, tracked, usable, True, scale, ratio), state


@dataclasses.dataclass(frozen=True)
class _View:
    """The frame being placed: grey image, its contrast, intrinsics, depth, whether a sensor's and whether it is to
    be compared with the keyframe's."""

    gray: NDArray[np.uint8]
    contrast: NDArray[np.uint8]
    camera: PinholeCamera
    stamp_ns: int
    depth: _DepthLookup
    trusted: bool
    compared: bool


@dataclasses.dataclass(frozen=True)
class _Fix:
    """A frame placed against a keyframe: pose, which corners agree, which were followed, and to where."""

    keyframe: Keyframe
    T_origin_camera: Array
    inliers: NDArray[np.bool_]
    tracked: NDArray[np.bool_]
    uv_px: NDArray[np.float32]

    @property
    def count(self) -> int:
        return int(self.inliers.sum())


def solve_pose(points: Array, uv_px: Array, camera: PinholeCamera, T_guess: Array, noise_px: float,
               depth_noise: float, iterations: int = 8,
               prior_noise: tuple[float, float] | None = None) -> tuple[Array, NDArray[np.bool_]]:
    """Perspective-n-point with uncertain depth: T_camera_keyframe and which points agree with it.

    Gauss-Newton from `T_guess` over the pose and, eliminated, the depth of every point with its prior.
    When few points agree, RANSAC (P3P) gives another start and the better of the two is kept.

    Args:
        points: (N, 3) metres in the keyframe, z > 0.
        uv_px: (N, 2) where they are seen now.
        camera: Intrinsics of the image of `uv_px`.
        T_guess: (4, 4) T_camera_keyframe to start from.
        noise_px: Standard deviation of `uv_px`.
        depth_noise: Relative standard deviation of the depth of `points`.
        iterations: Of Gauss-Newton.
        prior_noise: Standard deviations (radians, metres) of `T_guess` if it is also a measurement.
    """
    T_best, best = _refine(points, uv_px, camera, T_guess, noise_px, depth_noise, iterations, prior_noise)
    if best.sum() < 0.5 * len(points) and len(points) >= 6:
        # OpenCV's RANSAC seeds itself the same way each time: the result is reproducible.
        # The threshold admits the effect of wrong depth at moderate parallax; refinement is stricter.
        found, rotation, translation, _ = cv2.solvePnPRansac(
            points, uv_px, camera.K, None, iterationsCount=150, reprojectionError=6.0 * noise_px + 1.0,
            confidence=0.999, flags=cv2.SOLVEPNP_AP3P)
        if found and np.isfinite(rotation).all() and np.isfinite(translation).all():
            T_start = make_transform(cv2.Rodrigues(rotation)[0], translation.ravel())
            T_other, other = _refine(points, uv_px, camera, T_start, noise_px, depth_noise, iterations, None)
            # A few more inliers far from the guess are more often chance than motion.
            if other.sum() > 1.2 * best.sum():
                T_best, best = T_other, other
    return T_best, best


def _refine(points: Array, uv_px: Array, camera: PinholeCamera, T: Array, noise_px: float, depth_noise: float,
            iterations: int, prior_noise: tuple[float, float] | None) -> tuple[Array, NDArray[np.bool_]]:
    n = len(points)
    T_prior = np.array(T, dtype=np.float64)
    T = np.array(T, dtype=np.float64)
    focal, centre = np.array([[camera.fx], [camera.fy]]), np.array([[camera.cx], [camera.cy]])
    seen, points = uv_px.T, points.T
    jac = np.zeros((6, 2, n))
    noise2 = noise_px * noise_px
    T_inverse_prior, information = invert(T_prior), np.zeros(6)
    if prior_noise is not None:
        information[:3], information[3:] = 1.0 / np.square(prior_noise)
    log_depth = np.zeros(n)  # correction of each point's depth, prior N(0, depth_noise^2)
    converged = False
    for i in range(iterations + 1):
        turned = (T[:3, :3] @ points) * np.exp(log_depth)
        placed = turned + T[:3, 3:]
        front = placed[2] > 0.05
        z = np.where(front, placed[2], 1.0)
        xy = placed[:2] / z
        # Rows of the projection's derivative by the point: fx/z (1, 0, -x) and fy/z (0, 1, -y).
        scale = focal / z
        # A relative depth error moves the point along its ray in the keyframe, seen here as `slide`.
        slide = depth_noise * scale * (turned[:2] - xy * turned[2])
        # Eliminating the depths leaves residuals taken back to the prior depth (to first order), with
        # covariance noise^2 I + slide slide^T, whose inverse times r is (r - slide (slide . r) share) / noise^2
        # (Sherman-Morrison). Estimating them is what keeps the motion unbiased: regression on noisy depth would
        # explain translation by rotation.
        residual = focal * xy + centre - seen
        if depth_noise > 0.0:
            residual -= slide * (log_depth / depth_noise)
        share = 1.0 / (noise2 + slide[0] * slide[0] + slide[1] * slide[1])
        along = slide[0] * residual[0] + slide[1] * residual[1]
        distance2 = (residual[0] * residual[0] + residual[1] * residual[1] - along * along * share) / noise2
        distance2[~front] = np.inf
        if i == iterations or converged:
            break
        # Geman-McClure weights, as wide as the residuals are, so that a poor guess can pull itself in.
        width2 = max(9.0, 2.0 * _middle(distance2[front])) if front.any() else 9.0
        weight = np.square(width2 / (width2 + distance2)) / noise2
        # Left perturbation (rotation, translation) of T: d point = rotation x point + translation.
        (px, py, pz), (x, y), (du, dv) = placed, xy, scale
        jac[0, 0], jac[0, 1] = -du * x * py, -dv * (pz + y * py)
        jac[1, 0], jac[1, 1] = du * (pz + x * px), dv * y * px
        jac[2, 0], jac[2, 1] = -du * py, dv * px
        jac[3, 0], jac[4, 1] = du, dv
        jac[5, 0], jac[5, 1] = -du * x, -dv * y
        slid = (slide[0] * jac[:, 0] + slide[1] * jac[:, 1]) * share
        flat = ((jac - slide * slid[:, None]) * weight).reshape(6, 2 * n)
        normal = flat @ jac.reshape(6, 2 * n).T
        gradient = flat @ residual.ravel()
        if prior_noise is not None:
            # The camera, not the world's origin, is what the prior knows: rotation about it, step of it.
            away = T @ T_inverse_prior
            gradient[:3] += information[:3] * cv2.Rodrigues(away[:3, :3])[0][:, 0]
            gradient[3:] += information[3:] * away[:3, 3]
        diagonal = normal.reshape(-1)[::7]
        diagonal += information + 1e-9 * (1.0 + diagonal.sum())
        # OpenCV and not numpy and scipy, whose calls for one small matrix cost more than the rest of an iteration.
        solved, step = cv2.solve(normal, -gradient[:, None], flags=cv2.DECOMP_CHOLESKY)
        step = step[:, 0]
        size = float(np.abs(step).max())
        if not solved or not np.isfinite(size):
            break
        # Beyond half a radian or metre the linearisation means nothing.
        step /= max(1.0, size / 0.5)
        T = make_transform(cv2.Rodrigues(step[:3])[0], step[3:]) @ T
        residual = residual + (step @ jac.reshape(6, 2 * n)).reshape(2, n)
        log_depth = -depth_noise * share * (slide[0] * residual[0] + slide[1] * residual[1])
        np.clip(log_depth, -1.0, 1.0, out=log_depth)
        converged = size < 5e-4 and width2 == 9.0  # half a millimetre, a tenth of a pixel; the rest is far less
    return T, distance2 < 9.21  # 99 % of a chi-square with two degrees of freedom


def _contrast(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brightness relative to the surroundings on a logarithmic scale: Lucas-Kanade takes brightness for constant, but
    automatic exposure changes it everywhere by one factor."""
    log_gray = cv2.LUT(gray, _LOG_GRAY)
    above = cv2.subtract(cv2.add(log_gray, 128 * 64), cv2.blur(log_gray, (21, 21)))  # 0 at the least
    return cv2.convertScaleAbs(above, alpha=2.0 / 128.0)


def _middle(values: Array) -> float:
    """Upper median; `np.median` takes as long as the rest of an iteration's weights."""
    half = len(values) // 2
    return float(np.partition(values, half)[half])


_AROUND = np.array([(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)])  # a pixel, fifth, and its neighbours


class _DepthLookup:
    """Depth and people of one frame, asked at places of an image with another size and crop."""

    def __init__(self, depth_m: NDArray[np.floating], camera: PinholeCamera, people: NDArray[np.bool_] | None) -> None:
        self._camera, self._depth, self._people = camera, depth_m, people

    def _pixels(self, uv_px: NDArray[np.float32],
                camera: PinholeCamera) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
        c = self._camera
        u = np.rint((uv_px[:, 0] - camera.cx) * (c.fx / camera.fx) + c.cx)
        v = np.rint((uv_px[:, 1] - camera.cy) * (c.fy / camera.fy) + c.cy)
        inside = (u >= 0) & (v >= 0) & (u < c.width) & (v < c.height)
        return (np.where(inside, v, 0).astype(np.intp), np.where(inside, u, 0).astype(np.intp), inside)

    def at(self, uv_px: NDArray[np.float32], camera: PinholeCamera) -> Array:
        """(N,) metres at (N, 2) pixels of `camera`; NaN outside, where unknown, and at jumps of depth."""
        rows, columns, inside = self._pixels(uv_px, camera)
        height, width = self._depth.shape
        around = self._depth[np.clip(rows + _AROUND[:, :1], 0, height - 1),
                             np.clip(columns + _AROUND[:, 1:], 0, width - 1)]
        known, centre = _known(around), around[4].astype(np.float64)
        # At an edge of depth the corner may belong to either side.
        smooth = np.where(known, around, 0.0).max(axis=0) < 1.35 * np.where(known, around, np.inf).min(axis=0)
        return np.where(inside & smooth & known[4], centre, np.nan)

    def people_at(self, uv_px: NDArray[np.float32], camera: PinholeCamera) -> NDArray[np.bool_]:
        """(N,) whether (N, 2) pixels of `camera` lie on a person."""
        if self._people is None:
            return np.zeros(len(uv_px), bool)
        rows, columns, inside = self._pixels(uv_px, camera)
        return self._people[rows, columns] & inside

    def usable_mask(self, camera: PinholeCamera) -> NDArray[np.uint8]:
        """(h, w) 255 where corners of an image of `camera` have depth and no person."""
        c = self._camera
        usable = _known(self._depth)
        if self._people is not None:
            usable &= ~self._people
        sx, sy = camera.fx / c.fx, camera.fy / c.fy
        to_image = np.array([[sx, 0.0, camera.cx - c.cx * sx], [0.0, sy, camera.cy - c.cy * sy]])
        return cv2.warpAffine(usable.astype(np.uint8) * 255, to_image, (camera.width, camera.height),
                              flags=cv2.INTER_NEAREST)


def _known(depth_m: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where there is a plausible depth."""
    with np.errstate(invalid="ignore"):
        return (depth_m > 0.05) & (depth_m < 1e3)


def _differs(a: PinholeCamera, b: PinholeCamera) -> bool:
    """Whether two cameras are different in size, or in focal length by more than one percent."""
    return (a.width, a.height) != (b.width, b.height) or abs(a.fx / b.fx - 1.0) > 0.01
