"""Settings of the fusion."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args, get_type_hints

from human_scene_ros.errors import ConfigError
from human_scene_ros.fusion.tracker import TrackerConfig


@dataclasses.dataclass(frozen=True)
class FusionConfig:
    """Settings; defaults are the ones measured in the benchmark.

    Args:
        association: "mahalanobis" (rays and depths with their covariance), "rays" (the same without believing any
            depth: the distance between rays over its standard deviation, for depths that are wrong by half), or
            "paper": `position_weight` x mean joint distance in the world + `pose_weight` x the same in canonical pose.
        position: "map", "rays" (triangulation with statuses) or "mean" of the views' points.
        min_angle_deg: Rays that cross by less are not triangulated: depths decide, status PARALLEL_RAYS.
        robust: Views that contradict the others count less in "map" (Huber, three views and more) and are left out in
            "rays".
        pose: Chordal mean, or geodesic median from three views on.
        smoothing: Share of the last sum of rotations that enters the next one when four views see a person; times
            sqrt(4 / views) for others, at most 0.6; 0 = off.
        smooth_position: Publish the filtered head where the views leave its depth open (one view, or two on a
            line).
        position_correlation: How many frames' worth of one measurement's error is shared with the next;
            the filter's measurement covariance is multiplied by it.
        align_time: Move points to the common stamp by the person's velocity.
        average_betas: Combine the betas of all frames; else only the views of a frame are averaged.
        betas: "mean": running mean (at most 300 frames' weight); "median": median of each component over the last 300
            detections, from five on, smoothed by 0.05 per frame: for views that are wrong by far now and then.
        sigma_px: Pixel error of head rays.
        sure_score: Below this score the pixel error is taken to rise as 1 / score, as that of `nano` does; 0 = never.
        depth_fraction: Standard deviation of depth over depth until enough samples exist.
        adapt_depth_fraction: Estimate it from people fused from three views and more.
        learn_view_bias: Learn by which factor each view misjudges each person's depth (a network's error for one
            person lasts), and take it out. Without it, exactly the specified estimator.
        view_bias_rate: Share of a new error that enters the learned one.
        outlier_depth_fraction: Standard deviation of depth over depth of a detection whose depth is an outlier.
        outlier_penalty: Squared Mahalanobis distance that it costs to call a depth an outlier: a detection belongs to a
            person by the likelier of both errors, and counts for the person's place with that one (Olson and Agarwal,
            Inference on networks of mixtures, 2013). Infinite = never.
        pose_sigma_m: Standard deviation of a canonical joint, metres.
        gate: Mahalanobis gate of new pairs.
        anchor_gate: Squared Mahalanobis gate of a detection to the person it is bound to, by prediction and, from three
            views on, by what the other views say.
        paper_gate_m: Gate of the "paper" cost.
        position_weight: Of the "paper" cost.
        pose_weight: Of the "paper" cost.
        max_skew_s: Detections farther apart in time are not compared without a person between them.
        max_age_s: Detections farther from the stamp of the step are left out.
        birth_frames: A person seen by one view becomes global after so many frames.
        pair_frames: Where two views alone look, new tracks of both make a person from so many frames on: the true
            companion may have been missed in the first, and two views cannot outvote each other. (Where more look,
            waiting costs more than it saves.)
        miss_evidence: How much less likely (as a logarithm) it makes a person that a view which should see it does not;
            who is denied by more views than affirmed is not published. 0 = nobody is doubted.
        confirm_score: A new person of two views is published at once with this mean score, else on the
            third frame.
        merge_frames: Net frames of agreement before two people become one.
        death_s: Forget a person after this time unseen.
        covariance_inflation: For errors that the views share.
        tracker: Per-view tracking.
    """

    association: Literal["mahalanobis", "rays", "paper"] = "mahalanobis"
    position: Literal["map", "rays", "mean"] = "map"
    min_angle_deg: float = 3.0
    robust: bool = True
    pose: Literal["chordal", "median"] = "chordal"
    smoothing: float = 0.4
    smooth_position: bool = True
    position_correlation: float = 4.0
    align_time: bool = True
    average_betas: bool = True
    betas: Literal["mean", "median"] = "mean"
    sigma_px: float = 3.0
    sure_score: float = 0.7
    depth_fraction: float = 0.09
    adapt_depth_fraction: bool = True
    learn_view_bias: bool = True
    view_bias_rate: float = 0.1
    outlier_depth_fraction: float = 0.4
    outlier_penalty: float = 9.0
    pose_sigma_m: float = 0.12
    gate: float = 4.2
    anchor_gate: float = 16.27
    paper_gate_m: float = 0.8
    position_weight: float = 0.8
    pose_weight: float = 0.2
    max_skew_s: float = 0.04
    max_age_s: float = 0.1
    birth_frames: int = 5
    pair_frames: int = 3
    miss_evidence: float = 1.2
    confirm_score: float = 0.8
    merge_frames: int = 8
    death_s: float = 3.0
    covariance_inflation: float = 4.0
    tracker: TrackerConfig = dataclasses.field(default_factory=TrackerConfig)

    def __post_init__(self) -> None:
        if not 0.0 <= self.smoothing < 1.0:
            raise ConfigError(f"fusion smoothing = {self.smoothing}: expected 0 (off) to below 1")
        if not 0.0 <= self.min_angle_deg <= 90.0:
            raise ConfigError(f"fusion min_angle_deg = {self.min_angle_deg}: expected 0 to 90 degrees")
        for name in ("sigma_px", "depth_fraction", "pose_sigma_m", "gate", "anchor_gate", "paper_gate_m", "death_s",
                     "max_age_s", "covariance_inflation", "position_correlation", "outlier_depth_fraction",
                     "outlier_penalty"):
            if not getattr(self, name) > 0.0 or (math.isinf(getattr(self, name)) and name != "outlier_penalty"):
                raise ConfigError(f"fusion {name} = {getattr(self, name)}: expected a positive number")
        for name in ("association", "position", "pose", "betas"):
            known = get_args(get_type_hints(FusionConfig)[name])
            if getattr(self, name) not in known:
                raise ConfigError(f"fusion {name} = {getattr(self, name)!r}: expected one of {list(known)}")
        for name in ("sure_score", "miss_evidence"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0.0):
                raise ConfigError(f"fusion {name} = {getattr(self, name)}: expected 0 or a positive number")

    @property
    def min_condition(self) -> float:
        """`min_angle_deg` as the condition of two equal rays."""
        return math.sin(math.radians(self.min_angle_deg / 2.0)) ** 2
