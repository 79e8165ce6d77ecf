"""What a training run is made of; presets are instances of `TrainConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from human_scene_ros.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Factor of each loss term; see `human_scene_ros.training.losses` for the terms."""

    depth: float = 1.0
    depth_gradient: float = 0.5
    mask: float = 0.5
    detection: float = 1.0
    offset: float = 0.3
    head_depth: float = 0.4
    refine: float = 0.6
    root_rotation: float = 0.6
    rotation: float = 0.6
    joints: float = 1.0
    body_joints: float = 6.0
    image_joints: float = 3.0
    parts: float = 0.5
    surface: float = 1.0
    betas: float = 0.02
    pair_flow: float = 0.2
    pair_rotation: float = 20.0
    pair_translation: float = 10.0
    pair_spread: float = 0.02


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run; its length is a time budget, because budgets are what users have.

    Args:
        preset: Network preset.
        stage: "scene" trains everything but the window head; "bodies" trains only the window head, on windows
            placed by the truth, which sees many more people per second; "all" trains both together; "prompt" tunes
            the human prompts and body heads of an official checkpoint, whose encoder, decoder, scene heads and human
            backbone with its detector stay as they are (`training.prompt`); "pose" adds a pair head to trained weights,
            which stay as they are (`training.pair`).
        minutes: Budget of optimisation time over all starts of the run; the learning rate follows it.
        batch_clips: Clips per step and process.
        clip_frames: Frames of a clip, drawn at random, that are unrolled with back-propagation through the
            state. Two, because more clips teach more than more frames of one clip; burn-in lengthens memory.
        burn_in: Largest number of frames that a state lives through, without gradients, before a clip.
        burn_in_from: Fraction of the budget after which burn-in begins.
        learning_rate: Peak of the cosine schedule.
        warmup_steps: Linear warm-up.
        weight_decay: AdamW's, on matrices only.
        clip_gradient: Largest gradient norm.
        ema: Decay of the exponential moving average that is saved and shipped.
        head_jitter_px: Standard deviation of the teacher's head position, network pixels.
        depth_jitter: Standard deviation of the log of the teacher's head depth.
        predicted_masks: Fraction of the steps of the "bodies" and "pose" stages that see the masks (and depth) that the
            scene predicts, which cost more time than the step itself; the others see roughened truth.
        min_person_px: People below this height do not count as detections.
        save_every_s: Seconds between checkpoints.
        validate_every_s: Seconds between validations on fixed unseen worlds, with the moving average; 0 = never.
        validation_clips: Clips of the validation; rendered once per run folder.
        precision: "auto": bfloat16 by autocast on a GPU, float32 on a CPU.
        seed: Of everything random.
        weights: Loss weights.
    """

    preset: str = "nano"
    stage: Literal["scene", "bodies", "all", "prompt", "pose"] = "all"
    minutes: float = 100.0
    batch_clips: int = 12
    clip_frames: int = 2
    burn_in: int = 12
    burn_in_from: float = 0.6
    learning_rate: float = 1.2e-3
    warmup_steps: int = 200
    weight_decay: float = 0.03
    clip_gradient: float = 1.0
    ema: float = 0.999
    head_jitter_px: float = 1.5
    depth_jitter: float = 0.2
    predicted_masks: float = 0.0
    min_person_px: float = 12.0
    save_every_s: float = 120.0
    validate_every_s: float = 600.0
    validation_clips: int = 24
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0
    weights: LossWeights = LossWeights()

    def __post_init__(self) -> None:
        if self.minutes <= 0 or self.batch_clips < 1 or self.clip_frames < 1:
            raise ConfigError(f"train: minutes = {self.minutes}, batch_clips = {self.batch_clips}, "
                              f"clip_frames = {self.clip_frames}: all must be positive")
        if self.stage == "pose" and self.clip_frames < 2:
            raise ConfigError(f"train: clip_frames = {self.clip_frames}: the pose stage needs pairs, at least 2")
        if self.stage == "pose" and self.precision != "float32":
            raise ConfigError(f"train: precision = '{self.precision}': the pose stage solves for poses, which needs "
                              f"'float32'")
        if not 0.0 <= self.predicted_masks <= 1.0:
            raise ConfigError(f"train.predicted_masks = {self.predicted_masks}: expected a fraction from 0 to 1")
        if not 0.0 <= self.ema < 1.0:
            raise ConfigError(f"train.ema = {self.ema}: expected 0 <= ema < 1")


_SCENE = TrainConfig(stage="scene")
# Where the joints are comes first: which way a body faces follows from left and right being told apart.
_BODIES = TrainConfig(stage="bodies", batch_clips=48, clip_frames=1, learning_rate=1.5e-3, head_jitter_px=1.0,
                      depth_jitter=0.15, clip_gradient=5.0, weights=LossWeights(image_joints=10.0, root_rotation=0.3))

PRESETS = {
    "nano": TrainConfig(),
    "nano-scene": _SCENE,
    # Further cycles from trained weights: people are found first, depth is what still improves.
    "nano-scene-2": dataclasses.replace(
        _SCENE, minutes=32.0, learning_rate=6e-4, warmup_steps=40, ema=0.997, burn_in_from=0.3,
        weights=LossWeights(depth=2.5, depth_gradient=1.0, detection=3.0, mask=0.7)),
    "nano-bodies": _BODIES,
    # The same for bodies, partly on the masks that they will get: true ones promise more than can be kept.
    "nano-bodies-2": dataclasses.replace(
        _BODIES, predicted_masks=0.3, minutes=72.0, learning_rate=1e-3, warmup_steps=30, ema=0.997,
        weights=LossWeights(image_joints=10.0, root_rotation=0.6)),
    "nano-joint": TrainConfig(minutes=25.0, learning_rate=5e-4, warmup_steps=60, burn_in_from=0.0, ema=0.998),
    # Camera motion between two images, for weights that exist: near pairs first, then up to three frames apart.
    "nano-pose": TrainConfig(stage="pose", predicted_masks=0.1, minutes=25.0, batch_clips=4, clip_frames=4, burn_in=0,
                             learning_rate=2e-3, warmup_steps=30, weight_decay=0.01, ema=0.99, precision="float32"),
    "prompt-672s": TrainConfig(preset="human3r_672s", stage="prompt", minutes=600.0, batch_clips=2, clip_frames=4,
                               burn_in=0, learning_rate=1e-4, head_jitter_px=0.0, depth_jitter=0.0, min_person_px=40.0,
                               validation_clips=8),
    "smoke": TrainConfig(minutes=1.0, batch_clips=2, clip_frames=2, burn_in=2, save_every_s=10.0, ema=0.9,
                         warmup_steps=5, validate_every_s=0.0),
}
