"""Metric scale of a reconstruction from how long people look: the head-pelvis length in the image.

With the head fixed on its ray, a scene that is r times too small puts the person too near, and the projected
head-pelvis segment of the metric body is longer than the one in the image. Rescaling moves the map: apply it
to point maps, camera translations and heads, never to body vertices, which are metric.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.geometry.arrays import weighted_median

Array = NDArray[np.float64]

MIN_LENGTH_PX = 15.0
SAMPLE_EVERY = 5  # frames between two samples of one person: neighbouring frames repeat each other's errors
ENOUGH = 8  # samples
BELIEVED = (0.5, 2.0)  # factors that need no second opinion


class ScaleStatus(enum.IntEnum):
    """Whether the factor means anything."""

    OK = 0
    NO_SAMPLE = 1
    FEW_SAMPLES = 2
    REJECTED = 3


@dataclasses.dataclass(frozen=True)
class ScaleSamples:
    """Per person and frame.

    Args:
        length_smpl_px: (n,) projected head-pelvis segment at the present scale.
        length_image_px: (n,) the same in the image.
        ratio: (n,) first over second; NaN where the second is 0.
        rho: (n,) factor on the head position that makes the two equal; NaN where none does.
        valid: (n,) both segments long enough.
    """

    length_smpl_px: Array
    length_image_px: Array
    ratio: Array
    rho: Array
    valid: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class ScaleEstimate:
    """A factor r on the scale of the scene.

    Args:
        factor: 1 where there is no sample.
        status: Whether to believe it; REJECTED: out of range, not applied.
        samples: Number of samples used.
    """

    factor: float
    status: ScaleStatus
    samples: int


def scale_samples(K: NDArray[np.floating], head_camera: NDArray[np.floating],
                  head_to_pelvis_camera: NDArray[np.floating], head_uv_px: NDArray[np.floating],
                  pelvis_uv_px: NDArray[np.floating]) -> ScaleSamples:
    """Compare the projected body with what the image shows.

    Args:
        K: (3, 3).
        head_camera: (n, 3) at the present scale.
        head_to_pelvis_camera: (n, 3) metric.
        head_uv_px: (n, 2) head in the image.
        pelvis_uv_px: (n, 2) pelvis in the image.
    """
    matrix, head = np.asarray(K, np.float64), np.asarray(head_camera, np.float64).reshape(-1, 3)
    delta = np.asarray(head_to_pelvis_camera, np.float64).reshape(-1, 3)
    image = np.linalg.norm(np.asarray(pelvis_uv_px, np.float64) - np.asarray(head_uv_px, np.float64), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # pi(rho head + delta) - pi(head) = across / (rho head_z + delta_z): one root, in closed form.
        across = delta[:, :2] - head[:, :2] / head[:, 2:] * delta[:, 2:]
        across_px = np.hypot(matrix[0, 0] * across[:, 0] + matrix[0, 1] * across[:, 1], matrix[1, 1] * across[:, 1])
        pelvis_z = head[:, 2] + delta[:, 2]
        smpl = np.where((head[:, 2] > 1e-6) & (pelvis_z > 1e-6), across_px / pelvis_z, np.nan)
        ratio = np.where(image > 0.0, smpl / image, np.nan)
        rho = (across_px / image - delta[:, 2]) / head[:, 2]
        rho = np.where((head[:, 2] > 1e-6) & (rho >= 0.05) & (rho <= 20.0), rho, np.nan)
        valid = (image >= MIN_LENGTH_PX) & (smpl >= MIN_LENGTH_PX)
    return ScaleSamples(smpl, image, ratio, rho, valid)


def estimate_scale(samples: ScaleSamples, weights: NDArray[np.floating] | None = None, *,
                   mode: Literal["median", "mean", "mean_rho", "trimmed"] = "median") -> ScaleEstimate:
    """One factor from many samples, as it is: `ScaleFilter` shrinks what few say and rejects what is out of range.

    Args:
        samples: Of any frames, people and views.
        weights: (n,) confidences; None = equal. Used by the median.
        mode: "median" of rho (robust, the default), "mean" of the ratios (as published), "mean_rho",
            or "trimmed": mean of rho without a fifth of the samples at each end.
    """
    values = samples.ratio if mode == "mean" else samples.rho
    used = samples.valid & np.isfinite(values)
    if weights is not None:
        used &= np.asarray(weights) > 0.0
    values = values[used]
    n = len(values)
    if not n:
        return ScaleEstimate(1.0, ScaleStatus.NO_SAMPLE, 0)
    if mode == "median":
        factor = weighted_median(values, np.ones(n) if weights is None else np.asarray(weights, np.float64)[used])
    elif mode == "trimmed":
        cut = int(0.2 * n)
        factor = float(np.sort(values)[cut:n - cut].mean())
    else:
        factor = float(values.mean())
    return ScaleEstimate(factor, ScaleStatus.OK if n >= ENOUGH else ScaleStatus.FEW_SAMPLES, n)


def sample_weights(samples: ScaleSamples, head_camera: NDArray[np.floating],
                   head_to_pelvis_camera: NDArray[np.floating], confidence: NDArray[np.floating],
                   pelvis_inside: NDArray[np.bool_]) -> Array:
    """(n,) weights for robust use: 0 for near, foreshortened, cut off or uncertain people and absurd factors.

    Args:
        samples: Of these people.
        head_camera: (n, 3) at the present scale.
        head_to_pelvis_camera: (n, 3) metric.
        confidence: (n,) of the pelvis, 0 to 1.
        pelvis_inside: (n,) the pelvis lies inside the image.
    """
    head, delta = np.asarray(head_camera, np.float64), np.asarray(head_to_pelvis_camera, np.float64)
    with np.errstate(invalid="ignore"):
        length = np.maximum(np.linalg.norm(delta, axis=-1), 1e-9)
        good = ((head[:, 2] > 0.3) & (head[:, 2] + delta[:, 2] > 0.3) & (np.abs(delta[:, 2]) / length < 0.8)
                & (np.asarray(confidence) >= 0.3) & pelvis_inside & (samples.rho > 0.2) & (samples.rho < 5.0)
                & samples.valid)
    return np.where(good, np.asarray(confidence) * np.minimum(1.0, samples.length_image_px / 40.0), 0.0)


class Sample(NamedTuple):
    """One person in one frame, as the reservoir keeps it.

    Args:
        frame: Number of the frame.
        person: Track id.
        log_rho: Logarithm of the factor on the network's own geometry.
        weight: See `sample_weights`.
    """

    frame: int
    person: int
    log_rho: float
    weight: float


@dataclasses.dataclass(frozen=True)
class ScaleState:
    """What `ScaleFilter.step` knows of the frames before.

    Args:
        reservoir: Newest last.
        log_scale: Logarithm of the present scale.
        frame: Frames since the start.
        warm_up: Those of them in which somebody was measured and the scale might move.
    """

    reservoir: tuple[Sample, ...] = ()
    log_scale: float = 0.0
    frame: int = 0
    warm_up: int = 0

    @property
    def scale(self) -> float:
        """Factor on the network's geometry."""
        return float(np.exp(self.log_scale))


class ScaleFilter:
    """The scale over time: a reservoir of samples, slow steps, and a freeze after the warm-up.

    Consumers of TF cannot follow a scale that breathes, so it stands still after `freeze_after` frames with samples,
    when what is still missing is a sign of health only; 0: it never moves.
    """

    def __init__(self, *, rate: float = 0.05, capacity: int = 600, freeze_after: int = 60) -> None:
        self._rate, self._capacity, self._freeze_after = rate, capacity, freeze_after

    def frozen(self, state: ScaleState) -> bool:
        """True once the warm-up is over."""
        return state.warm_up >= self._freeze_after

    def step(self, samples: ScaleSamples, weights: NDArray[np.floating], people: Sequence[int], state: ScaleState,
             supported: Callable[[float], bool] = lambda factor: False) -> tuple[ScaleEstimate, ScaleState]:
        """Take one frame's samples, measured at the present scale, and move the scale a little.

        Args:
            samples: Of the frame; may be empty.
            weights: (n,) see `sample_weights`.
            people: (n) track ids; nobody gives more than one sample in `SAMPLE_EVERY` frames.
            state: From the previous frame.
            supported: Cross-check of a factor outside `BELIEVED`, which is rejected without it.

        Returns:
            What is still missing from the present scale, and the state with the scale to use.
        """
        frame, good = state.frame + 1, (np.asarray(weights) > 0.0) & np.isfinite(samples.rho)
        recent = {s.person for s in state.reservoir if s.frame > frame - SAMPLE_EVERY}
        # Stored as absolute scales: the present one changes between frames.
        new = [Sample(frame, people[i], float(np.log(samples.rho[i])) + state.log_scale, float(weights[i]))
               for i in np.flatnonzero(good).tolist() if people[i] not in recent]
        state = dataclasses.replace(state, reservoir=(*state.reservoir, *new)[-self._capacity:], frame=frame)
        n = len(state.reservoir)
        if not n:
            return ScaleEstimate(1.0, ScaleStatus.NO_SAMPLE, 0), state
        wanted = _median(state.reservoir) - state.log_scale
        factor = float(np.exp(wanted))
        if not BELIEVED[0] <= factor <= BELIEVED[1] and not supported(factor):
            return ScaleEstimate(factor, ScaleStatus.REJECTED, n), state
        estimate = ScaleEstimate(factor, ScaleStatus.OK, n)
        if n < ENOUGH:  # a few samples are believed in part
            wanted *= n / (n + 8.0)
            estimate = ScaleEstimate(float(np.exp(wanted)), ScaleStatus.FEW_SAMPLES, n)
        if self.frozen(state) or not good.any():
            return estimate, state
        moves = abs(wanted) >= 0.01 and (abs(wanted) <= 0.1 or _agreed(state))
        return estimate, dataclasses.replace(
            state, warm_up=state.warm_up + 1, log_scale=state.log_scale + (self._rate * wanted if moves else 0.0))


def _median(samples: Sequence[Sample]) -> float:
    return weighted_median(np.array([s.log_rho for s in samples]), np.array([s.weight for s in samples]))


def _agreed(state: ScaleState, windows: int = 3) -> bool:
    """Whether each of the last windows of `SAMPLE_EVERY` frames by itself asks for a jump to the same side."""
    by_window: dict[int, list[Sample]] = {}
    for sample in reversed(state.reservoir):
        window = (state.frame - sample.frame) // SAMPLE_EVERY
        if window not in by_window and len(by_window) == windows:
            break
        by_window.setdefault(window, []).append(sample)
    asked = np.array([_median(s) - state.log_scale for s in by_window.values()])
    return len(asked) == windows and bool((asked > 0.1).all() or (asked < -0.1).all())
