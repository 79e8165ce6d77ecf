"""What goes into and comes out of the network's steps. Tensors are batch first; nothing is changed in place."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from human_scene_ros.model.tracking import TrackBank


@dataclasses.dataclass(frozen=True)
class StreamState:
    """What links the frames of a stream. Constant size; never changed in place.

    Args:
        tokens: (B, S, D) state tokens.
        memory: (B, M, 2 D) pose memory; None when the network has none.
        bank: People seen so far (streams, B = 1). Survives resets.
        previous_reset: The next frame starts a new chunk: true before the first frame and after a reset.
    """

    tokens: Tensor
    memory: Tensor | None
    bank: TrackBank
    previous_reset: bool = True

    def detached(self) -> StreamState:
        """The same state without gradients."""
        return dataclasses.replace(self, tokens=self.tokens.detach(),
                                   memory=None if self.memory is None else self.memory.detach())


@dataclasses.dataclass(frozen=True)
class SceneTokens:
    """Result of the scene encoder.

    Args:
        tokens: (B, h * w, E) after the final norm.
        positions: (B, h * w, 2) integer (row, column).
        grid: (h, w) = image size / 16.
        pyramid: Stem maps at strides 4 and 8, (B, C, H/4, W/4) and (B, C, H/8, W/8); None without a stem.
    """

    tokens: Tensor
    positions: Tensor
    grid: tuple[int, int]
    pyramid: tuple[Tensor, Tensor] | None

    def as_map(self, tokens: Tensor) -> Tensor:
        """(B, h * w, C) -> (B, C, h, w)."""
        return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *self.grid)


@dataclasses.dataclass(frozen=True)
class Detections:
    """Heads found on the human-token grid, padded to the largest count of the batch.

    Args:
        logits: (B, n, 1) raw score of every token.
        scores: (B, nh, nw) after non-maximum suppression.
        cells: (B, P, 2) integer (row, column); zeros where not valid.
        valid: (B, P) bool.
    """

    logits: Tensor
    scores: Tensor
    cells: Tensor
    valid: Tensor


@dataclasses.dataclass(frozen=True)
class DecoderTaps:
    """What the heads read from the recurrent decoder.

    Args:
        pose_query: (B, 1, D) pose token as fed.
        half: (B, 1 + N + P, D) image stream after half of the layers: pose row, image rows, people rows.
        three_quarter: The same after three quarters.
        final: The same after the last layer and its norm.
        new_tokens: (B, S, D) proposed state.
        new_memory: (B, M, 2 D) proposed pose memory, None without one.
        gate: (B, S, 1) TTT3R gate of the state update, None when not used.
        people: P.
    """

    pose_query: Tensor
    half: Tensor
    three_quarter: Tensor
    final: Tensor
    new_tokens: Tensor
    new_memory: Tensor | None
    gate: Tensor | None
    people: int

    @classmethod
    def only_people(cls, human_out: Tensor) -> DecoderTaps:
        """Taps of a decoder that saw nothing but (B, P, D) people: for training a body head by itself."""
        pose = human_out.new_zeros(len(human_out), 1, human_out.shape[-1])
        rows = torch.cat([pose, human_out], dim=1)
        return cls(pose, rows, rows, rows, rows[:, :0], None, None, human_out.shape[1])

    def image_rows(self, tap: Tensor) -> Tensor:
        """The (B, N, D) image rows of a tap."""
        return tap[:, 1:tap.shape[1] - self.people]

    @property
    def pose_out(self) -> Tensor:
        """(B, 1, D)."""
        return self.final[:, :1]

    @property
    def human_out(self) -> Tensor:
        """(B, P, D): descriptor and body token of each person."""
        return self.final[:, self.final.shape[1] - self.people:]


@dataclasses.dataclass(frozen=True)
class Dense:
    """Per-pixel results at network image size; absent heads are None.

    Args:
        points: (B, H, W, 3) camera frame, metres.
        confidence: (B, H, W), at least 1.
        points_world: (B, H, W, 3).
        confidence_world: (B, H, W).
        rgb: (B, H, W, 3) in [-1, 1].
    """

    points: Tensor
    confidence: Tensor
    points_world: Tensor | None = None
    confidence_world: Tensor | None = None
    rgb: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class WindowFit:
    """What the window head adds to a body, for training; (B, P) leading.

    Args:
        head_depth_m: z of the head as the token head sees it; with gradients.
        refined_uv_px: (B, P, 2) head after the window.
        refined_depth_m: (B, P) head depth after the window.
        joints_uv_px: (B, P, 22, 2) joints in the network image (auxiliary).
        joints_behind_head_m: (B, P, 22) depth of the joints beyond that of the head (auxiliary).
        width_px: (B, P) width of the window in the network image.
        features: (R, C, h, w) fine features of the R windows that were looked at.
        rows: (R,) their first index.
        slots: (R,) their second index.
    """

    head_depth_m: Tensor
    refined_uv_px: Tensor
    refined_depth_m: Tensor
    joints_uv_px: Tensor
    joints_behind_head_m: Tensor
    width_px: Tensor
    features: Tensor
    rows: Tensor
    slots: Tensor


@dataclasses.dataclass(frozen=True)
class Bodies:
    """One body per person; (B, P) leading.

    Args:
        rotmat: (B, P, 53, 3, 3): root (SMPL-X axes -> camera), 21 body, 15 left hand, 15 right hand, jaw.
        shape: (B, P, 10) betas.
        expression: (B, P, 10).
        transl: (B, P, 3) head joint (SMPL-X joint 15) in the camera frame, metres.
        window: Set by the window head only.
    """

    rotmat: Tensor
    shape: Tensor
    expression: Tensor
    transl: Tensor
    window: WindowFit | None = None


@dataclasses.dataclass(frozen=True)
class NetworkOutput:
    """Results of one frame, batch 1; P people, P may be 0. Parts that are off or not asked for are None.

    Args:
        pts3d_in_self_view: (1, H, W, 3) points in the camera frame, metres.
        conf_self: (1, H, W) their confidence, at least 1.
        camera_pose: (1, 7) t, quaternion wxyz; camera to world.
        pts3d_in_other_view: (1, H, W, 3) points in the world frame.
        conf: (1, H, W) their confidence.
        rgb: (1, H, W, 3) in [-1, 1].
        smpl_shape: (1, P, 10).
        smpl_transl: (1, P, 3) head joint in the camera frame, metres.
        smpl_rotmat: (1, P, 53, 3, 3).
        smpl_expression: (1, P, 10).
        smpl_id: (1, P) int64.
        msk: (1, R, R, 1) person probability on the human image; (1, H, W, 1) with a pyramid backbone.
        smpl_scores: (1, nh, nw, 1) head scores after suppression.
        smpl_loc: (1, P, 2) head (u, v) in the human image; in the network image with a pyramid backbone.
        detection_score: (1, P) score of each person.
        window: What the window body head saw; None with the token head.
        stages: Intermediate tensors, filled when asked for.
    """

    pts3d_in_self_view: Tensor
    conf_self: Tensor
    camera_pose: Tensor | None
    pts3d_in_other_view: Tensor | None
    conf: Tensor | None
    rgb: Tensor | None
    smpl_shape: Tensor
    smpl_transl: Tensor
    smpl_rotmat: Tensor
    smpl_expression: Tensor
    smpl_id: Tensor
    msk: Tensor | None
    smpl_scores: Tensor
    smpl_loc: Tensor
    detection_score: Tensor
    window: WindowFit | None = None
    stages: dict[str, Tensor] = dataclasses.field(default_factory=dict)
