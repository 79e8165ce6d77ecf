"""The network: one image and the memory of the earlier ones in; points, camera and people out.

One class serves the official Human3R weights and the small nano preset; the configuration says which parts exist
and how a few of them work. `step` runs one frame of one stream. Its parts are public, batch-first methods, so that
training composes the same code with true detections: `encode`, `human_tokens`, `detect`, `prompts`, `decode`,
`dense`, `bodies`, `next_state`. State goes in and comes out; nothing is kept in the module.

Frames: points and bodies are in the camera (optical) frame, metres; `camera_pose` is camera-to-world with the
world at the first camera after a reset. Pixels (u, v) are (column, row) of the network image unless "human image"
is said: the padded square that the official human branch looks at.

Sources: Human3R (arXiv 2510.06219), CUT3R (arXiv 2501.12387), TTT3R (arXiv 2509.26645), Multi-HMR
(arXiv 2402.14654), DINOv2 (arXiv 2304.07193); written from descriptions, not from their code.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own idiom)
from torch import Tensor, nn

from human_scene_ros.errors import ConfigError, ShapeError
from human_scene_ros.geometry.arrays import check_shape
from human_scene_ros.model.formulas import (
    crop_from_square,
    cut_windows,
    decode_points,
    decode_pose,
    decode_rgb,
    exp_map,
    from_square_px,
    pad_to_square,
    pixel_rays,
    rays_through,
    rotations_from_6d,
    soft_sigmoid,
    take_cells,
    turn_to_ray,
    vector,
    window_places,
)
from human_scene_ros.model.layers import (
    Block,
    ConvResidual,
    ConvStem,
    DecoderBlock,
    DinoBackbone,
    DinoEncoder,
    DptHead,
    HeadMlp,
    Mlp,
    ModulatedBlock,
    PatchEmbed,
    PyramidBackbone,
    conv_bn_gelu,
    layer_norm,
    rope_phases,
)
from human_scene_ros.model.pair_pose import PairPose
from human_scene_ros.model.tracking import TrackBank, assign_ids
from human_scene_ros.model.types import (
    Bodies,
    DecoderTaps,
    Dense,
    Detections,
    NetworkOutput,
    SceneTokens,
    StreamState,
    WindowFit,
)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JOINTS = 53  # root, 21 body, 15 left hand, 15 right hand, jaw
BODY_JOINTS = 22
WINDOW_HEIGHT_M = 2.1
ALL_OUTPUTS = frozenset({"world", "rgb", "mask"})
PRODUCT_OUTPUTS = frozenset({"mask"})


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """The branch that sees people.

    Args:
        kind: "dinov2" on a padded square image, or "pyramid" on the network's own stride-8 features.
        embed_dim: Token width.
        depth: Blocks (dinov2).
        num_heads: Attention heads (dinov2).
        image_px: Side of the padded square (dinov2).
        patch_px: Pixels per token side.
        table_side: Side of the stored position table (dinov2).
    """

    kind: Literal["dinov2", "pyramid"] = "dinov2"
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    image_px: int = 896
    patch_px: int = 14
    table_side: int = 37


@dataclasses.dataclass(frozen=True)
class DptConfig:
    """The dense heads.

    Args:
        feature_dim: Width of the fusion path.
        last_dim: Width of the output convolutions.
        layer_dims: Channels of the four levels.
        taps: Levels 0 and 1 from tokens, or from the convolutional stem's maps at strides 4 and 8.
        output_stride: 1, or 2: the last doubling is replaced by a bilinear resize of the raw result.
    """

    feature_dim: int = 256
    last_dim: int = 128
    layer_dims: tuple[int, int, int, int] = (96, 192, 384, 768)
    taps: Literal["tokens", "stem"] = "tokens"
    output_stride: Literal[1, 2] = 1


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Everything that decides the network's parameters and numbers; defaults are the official 896L network.

    Args:
        name: Preset name, for messages.
        image_width_px: Longer side of the network image.
        patch_embed: One 16x16 convolution, or a stem of four stride-2 convolutions.
        stem_dims: Channels of the stem at strides 2, 4, 8.
        enc_embed_dim: Width of the scene encoder, with enc_depth blocks of enc_num_heads heads.
        dec_embed_dim: Width of the decoder, with dec_depth layers of two streams.
        dec_num_heads: Heads of the image stream, the pose memory and the world-view blocks.
        state_dec_num_heads: Heads of the state stream.
        state_size: Number of state tokens.
        local_mem_size: Rows of the pose memory.
        mlp_ratio: Hidden width of transformer MLPs over their width.
        head_hidden_ratio: Hidden width of prompt, body and camera heads over their input width.
        ray_enc_depth: Blocks of the ray-map encoder, which official checkpoints carry unused.
        backbone: Human branch.
        dpt: Dense heads.
        pose_memory: Ask a memory for the pose query; otherwise it is a constant.
        pose_head: Predict the camera pose.
        world_head: Predict the pointmap in the world frame.
        rgb_head: Reconstruct the image.
        mask_head: Predict the person mask.
        pair_pose: Have a head for the camera's motion between two images (`model.pair_pose`).
        dense: "pointmap": three coordinates; "ray_depth": canonical depth times the ray of camera_K.
        canonical_focal: Focal length over image_width_px at which canonical depth is metric depth (ray_depth);
            in pixels it is one number for landscape and portrait, because a person's size in pixels tells depth.
        body_head: "token": body from the person's token; "window": from an image window placed by it.
        window_size: Width and height of that window, pixels; multiples of 16.
        detection_threshold: Least head score of a detection.
        birth_threshold: Least head score that may begin a track; weaker detections only continue one, as long as the
            running mean of its scores is not below.
        nms_kernel: Side of the window of non-maximum suppression, tokens.
        track_bank_cap: Most people remembered for re-identification.
        use_ttt3r: Gate the state update by the attention it received (TTT3R).
        rope_fp16: Round q and k of the scene encoder to float16 as the official run does.
        unused_keys: Hold the tensors that official checkpoints carry and streaming never uses, so that a
            checkpoint loads and saves without a lost or added key.
    """

    name: str = "custom"
    image_width_px: int = 512
    patch_embed: Literal["conv", "stem"] = "conv"
    stem_dims: tuple[int, int, int] = (16, 32, 64)
    enc_embed_dim: int = 1024
    enc_depth: int = 24
    enc_num_heads: int = 16
    dec_embed_dim: int = 768
    dec_depth: int = 12
    dec_num_heads: int = 12
    state_dec_num_heads: int = 16
    state_size: int = 768
    local_mem_size: int = 256
    mlp_ratio: float = 4.0
    head_hidden_ratio: float = 4.0
    ray_enc_depth: int = 2
    backbone: BackboneConfig = BackboneConfig()
    dpt: DptConfig = DptConfig()
    pose_memory: bool = True
    pose_head: bool = True
    world_head: bool = True
    rgb_head: bool = True
    mask_head: bool = True
    pair_pose: bool = False
    dense: Literal["pointmap", "ray_depth"] = "pointmap"
    canonical_focal: float = 0.9
    body_head: Literal["token", "window"] = "token"
    window_size: tuple[int, int] = (64, 96)
    detection_threshold: float = 0.3
    birth_threshold: float = 0.3
    nms_kernel: int = 3
    track_bank_cap: int = 1024
    use_ttt3r: bool = False
    rope_fp16: bool = False
    unused_keys: bool = True

    def __post_init__(self) -> None:
        for heads, dim in (("enc_num_heads", "enc_embed_dim"), ("dec_num_heads", "dec_embed_dim"),
                           ("state_dec_num_heads", "dec_embed_dim")):
            h, d = getattr(self, heads), getattr(self, dim)
            if d % (4 * h):
                raise ConfigError(f"network.{heads} = {h}: {dim} = {d} must be a multiple of 4 * heads "
                                  f"(rotary positions take channels in fours)")
        if self.image_width_px % 16:
            raise ConfigError(f"network.image_width_px = {self.image_width_px}: must be a multiple of 16")
        if self.backbone.kind == "dinov2" and self.backbone.image_px % self.backbone.patch_px:
            raise ConfigError(f"network.backbone.image_px = {self.backbone.image_px}: must be a multiple of "
                              f"patch_px = {self.backbone.patch_px}")
        needs_stem = {"backbone.kind": self.backbone.kind == "pyramid", "dpt.taps": self.dpt.taps == "stem"}
        for name, needed in needs_stem.items():
            if needed and self.patch_embed != "stem":
                raise ConfigError(f"network.{name} needs the feature maps of patch_embed = 'stem', "
                                  f"got patch_embed = '{self.patch_embed}'")
        if self.body_head == "window" and not self.mask_head:
            raise ConfigError("network.body_head = 'window' needs mask_head = true: the mask is its fourth channel")
        if not 0.0 < self.detection_threshold < 1.0:
            raise ConfigError(f"network.detection_threshold = {self.detection_threshold}: expected 0 < x < 1")


def _note(stages: dict[str, Tensor] | None, name: str, value: Tensor) -> None:
    if stages is not None:
        stages[name] = value


class PoseMemory(nn.Module):
    """A small memory that is asked for the pose query and told the pose token of every frame."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = config.dec_embed_dim
        self.masked_token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.mem = nn.Parameter(0.02 * torch.randn(1, config.local_mem_size, 2 * dim))
        self.proj_q = nn.Linear(config.enc_embed_dim, dim)
        self.write_blocks = nn.ModuleList(
            DecoderBlock(2 * dim, config.dec_num_heads, config.mlp_ratio) for _ in range(2))
        self.read_blocks = nn.ModuleList(
            DecoderBlock(2 * dim, config.dec_num_heads, config.mlp_ratio) for _ in range(2))

    def read(self, memory: Tensor, scene_mean: Tensor) -> Tensor:
        """(B, M, 2 D), (B, 1, E) -> pose query (B, 1, D)."""
        asked = self.masked_token.expand(len(scene_mean), -1, -1)
        x = torch.cat([self.proj_q(scene_mean), asked], dim=-1)
        for block in self.read_blocks:
            x, _ = block(x, memory)
        return x[..., asked.shape[-1]:]

    def write(self, memory: Tensor, scene_mean: Tensor, pose_out: Tensor) -> Tensor:
        """The memory after seeing this frame's pose token (B, 1, D)."""
        told = torch.cat([self.proj_q(scene_mean), pose_out], dim=-1)
        for block in self.write_blocks:
            memory, _ = block(memory, told)
        return memory


class WindowHead(nn.Module):
    """Convolutions over a person's window: first where each joint is, then which pose puts it there.

    Joints come as the centre of mass of one heat map each, with a depth read at the same place (integral
    regression, arXiv 1711.08229); the rotations are read from the joints, the window and the decoder token.
    """

    OUTPUTS = {"pose6d": BODY_JOINTS * 6, "betas": 10, "refine": 3, "joints": BODY_JOINTS * 3}

    def __init__(self, size: tuple[int, int], token_dim: int, dims: tuple[int, ...] = (24, 48, 96, 160),
                 hidden: int = 256) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv_bn_gelu(4, dims[0], 2)])
        for a, b in zip(dims[:-1], dims[1:], strict=True):
            self.down.append(nn.Sequential(conv_bn_gelu(a, b, 2), ConvResidual(b)))
        self.lateral = nn.ModuleList([nn.Conv2d(dims[3], dims[2], 1), nn.Conv2d(dims[2], dims[1], 1)])
        self.up = nn.ModuleList([conv_bn_gelu(dims[2], dims[2]), conv_bn_gelu(dims[1], 64)])
        self.maps = nn.Conv2d(64, 2 * BODY_JOINTS, 1)
        cells = (size[0] // 16) * (size[1] // 16)
        self.squeeze = nn.Linear(cells * dims[3], hidden)
        self.join = nn.Linear(hidden + token_dim + 4 * BODY_JOINTS, hidden)
        self.solve = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, sum(self.OUTPUTS.values()))

    @torch.no_grad()
    def forget_tokens(self) -> None:
        """Give the decoder token no say, so that a head trained without tokens works the same with them."""
        hidden = self.squeeze.out_features
        self.join.weight[:, hidden:self.join.in_features - 4 * BODY_JOINTS] = 0

    def forward(self, windows: Tensor, tokens: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """(R, 4, h, w) and (R, D) -> raw results of R people by the names of OUTPUTS, and (R, C, h / 4, w / 4)
        features.

        "joints" holds (x, y) in window widths from the head, then z in metres behind it, per joint.
        """
        levels = []
        x = windows
        for stage in self.down:
            x = stage(x)
            levels.append(x)
        fine = x
        for lateral, up, skip in zip(self.lateral, self.up, (levels[2], levels[1]), strict=True):
            fine = up(skip + F.interpolate(lateral(fine), scale_factor=2.0, mode="bilinear", align_corners=False))
        places = window_places((fine.shape[3], fine.shape[2]), fine)
        heat, depth = self.maps(fine).float().flatten(2).chunk(2, dim=1)
        heat = heat.softmax(dim=-1)
        seen = torch.cat([heat @ places, (heat * depth).sum(-1, keepdim=True)], dim=-1)
        found = torch.cat([seen, heat.amax(dim=-1, keepdim=True)], dim=-1).flatten(1)

        x = F.gelu(self.squeeze(x.flatten(1)))
        x = F.gelu(self.join(torch.cat([x, tokens, found.to(x.dtype)], dim=-1)))
        x = F.gelu(self.solve(x)) + x
        raw = dict(zip(self.OUTPUTS, self.out(x).split(list(self.OUTPUTS.values()), dim=-1), strict=True))
        raw["joints"] = raw["joints"] + seen.flatten(1)  # joints outside the window need the correction
        return raw, fine


class Heads(nn.Module):
    """Everything that turns tokens into outputs; a plain holder, the formulas are in `HumanSceneNetwork`."""

    init_body_pose: Tensor
    init_betas: Tensor
    init_expression: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        e, d, b = config.enc_embed_dim, config.dec_embed_dim, config.backbone.embed_dim
        ratio = config.head_hidden_ratio
        identity = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
        upright = [1.0, 0.0, 0.0, -1.0, 0.0, 0.0]  # the camera's y points down, the body's up
        self.register_buffer("init_body_pose", torch.tensor([upright + identity * (JOINTS - 1)]))
        self.register_buffer("init_betas", torch.zeros(1, 10))
        self.register_buffer("init_expression", torch.zeros(1, 10))
        if config.unused_keys:
            self.register_buffer("init_betas_kid", torch.zeros(1, 11))
            self.register_buffer("init_cam", torch.zeros(1, 3))

        def dpt(channels: int) -> DptHead:
            stem = config.dpt.taps == "stem"
            return DptHead(
                (config.stem_dims[1], config.stem_dims[2], d, d) if stem else (e, d, d, d), config.dpt.layer_dims,
                config.dpt.feature_dim, config.dpt.last_dim, channels, stem_taps=stem,
                full_size=config.dpt.output_stride == 1, unused_keys=config.unused_keys)

        self.dpt_self = dpt(2 if config.dense == "ray_depth" else 4)
        if config.world_head:
            self.final_transform = nn.ModuleList(
                ModulatedBlock(d, config.dec_num_heads, config.mlp_ratio) for _ in range(2))
            self.dpt_cross = dpt(4)
        if config.rgb_head:
            self.dpt_rgb = dpt(3)
        if config.pose_head:
            self.pose_head = nn.ModuleDict({"mlp": Mlp(d, int(ratio * d), 7)})
        self.mlp_classif = nn.Sequential(nn.Linear(b, b), nn.ReLU(), nn.Linear(b, 1))
        self.mlp_offset = nn.Sequential(nn.Linear(b, b), nn.ReLU(), nn.Linear(b, 2))
        if config.mask_head:
            self.mlp_msk = HeadMlp(b, b, config.backbone.patch_px**2)
        self.mlp_fuse = HeadMlp(b + e, int(ratio * (b + e)), d)
        self.deccam = HeadMlp(d, int(ratio * d), 3)
        if config.body_head == "token":
            self.decpose = HeadMlp(d + b, int(ratio * (d + b)), JOINTS * 6)
            self.decshape = HeadMlp(d + b, int(ratio * (d + b)), 10)
            self.decexpression = HeadMlp(d + b, int(ratio * (d + b)), 10)
        else:
            self.window = WindowHead(config.window_size, d)


class HumanSceneNetwork(nn.Module):
    """See the module docstring. Parameter names are those of the official checkpoints.

    `config.use_ttt3r`, `rope_fp16`, thresholds and caps may be replaced after construction
    (`network.config = dataclasses.replace(network.config, ...)`); the rest shapes the parameters.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        e, d, b = config.enc_embed_dim, config.dec_embed_dim, config.backbone
        self.pose_token = nn.Parameter(0.02 * torch.randn(1, 1, d))
        if config.patch_embed == "stem":
            self.patch_embed: ConvStem | PatchEmbed = ConvStem(config.stem_dims, e)
        else:
            self.patch_embed = PatchEmbed(3, e, 16)
        self.enc_blocks = nn.ModuleList(
            Block(e, config.enc_num_heads, config.mlp_ratio) for _ in range(config.enc_depth))
        self.enc_norm = layer_norm(e)
        self.decoder_embed = nn.Linear(e, d)
        self.dec_blocks = nn.ModuleList(
            DecoderBlock(d, config.dec_num_heads, config.mlp_ratio) for _ in range(config.dec_depth))
        self.dec_norm = layer_norm(d)
        self.register_tokens = nn.Embedding(config.state_size, e)
        self.decoder_embed_state = nn.Linear(e, d)
        self.dec_blocks_state = nn.ModuleList(
            DecoderBlock(d, config.state_dec_num_heads, config.mlp_ratio) for _ in range(config.dec_depth))
        self.dec_norm_state = layer_norm(d)
        if config.pose_memory:
            self.pose_retriever = PoseMemory(config)
        if b.kind == "dinov2":
            self.backbone: DinoBackbone | PyramidBackbone = DinoBackbone(
                DinoEncoder(b.embed_dim, b.depth, b.num_heads, 4.0, b.patch_px, b.table_side, config.unused_keys))
        else:
            self.backbone = PyramidBackbone(config.stem_dims[2], e, b.embed_dim)
        self.downstream_head = Heads(config)
        if config.pair_pose:
            self.pair_pose = PairPose()
        if config.unused_keys:
            self._add_unused_keys()
        self._initialise()

    def _add_unused_keys(self) -> None:
        """Tensors of official checkpoints that belong to training or to ray-map inputs; streaming has neither."""
        config = self.config
        e, b = config.enc_embed_dim, config.backbone.embed_dim
        for name, dim in (("masked_img_token", e), ("masked_ray_map_token", e), ("masked_smpl_token", e),
                          ("mhmr_masked_smpl_token", b), ("mhmr_masked_img_token", b)):
            self.register_parameter(name, nn.Parameter(torch.zeros(1, dim)))
        self.patch_embed_ray_map = PatchEmbed(6, e, 16)
        self.enc_blocks_ray_map = nn.ModuleList(
            Block(e, config.enc_num_heads, config.mlp_ratio) for _ in range(config.ray_enc_depth))
        self.enc_norm_ray_map = layer_norm(e)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Start near "nobody here", bodies in the mean pose and everything about three metres away."""
        heads = self.downstream_head
        nn.init.normal_(self.register_tokens.weight, std=0.2)
        named = dict(heads.named_parameters())
        named["mlp_classif.2.bias"].fill_(-3.0)
        named["mlp_offset.2.weight"].mul_(0.1)
        if self.config.dense == "ray_depth":
            named["dpt_self.head.4.bias"].copy_(torch.tensor([math.log(3.0), 0.0]))
        if self.config.body_head == "window":
            heads.deccam.last.weight.mul_(0.1)
            heads.deccam.last.bias.copy_(heads.deccam.last.bias.new_tensor([0.0, 0.0, math.log(3.0)]))
            nn.init.normal_(heads.window.out.weight, std=1e-3)
            nn.init.zeros_(heads.window.out.bias)

    # -- state

    def initial_state(self, batch: int = 1) -> StreamState:
        """The state before the first frame; it does not depend on any image."""
        tokens = self.decoder_embed_state(self.register_tokens.weight)[None].expand(batch, -1, -1)
        memory = self.pose_retriever.mem.expand(batch, -1, -1) if self.config.pose_memory else None
        return StreamState(tokens, memory, TrackBank.empty(self.config.dec_embed_dim))

    def next_state(self, state: StreamState, taps: DecoderTaps, *, update: bool = True,
                   reset: bool = False) -> StreamState:
        """The state after a frame. `update=False` keeps the old one; `reset=True` starts afresh afterwards."""
        if reset:
            fresh = self.initial_state(len(state.tokens))
            return dataclasses.replace(fresh, bank=state.bank)
        if not update:
            return dataclasses.replace(state, previous_reset=False)
        tokens = taps.new_tokens
        if taps.gate is not None:
            tokens = taps.gate * tokens + (1 - taps.gate) * state.tokens
        return dataclasses.replace(state, tokens=tokens, memory=taps.new_memory, previous_reset=False)

    # -- tokens

    def encode(self, images: Tensor, stages: dict[str, Tensor] | None = None) -> SceneTokens:
        """Scene encoder.

        Args:
            images: (B, 3, H, W) in [-1, 1]; H and W multiples of 16.
            stages: Receives intermediate tensors.

        Raises:
            ShapeError: The size is no multiple of 16.
        """
        check_shape("images", images, (None, 3, None, None))
        height, width = images.shape[-2:]
        if height % 16 or width % 16 or not height or not width:
            raise ShapeError(f"images are {width}x{height} px; width and height must be multiples of 16")
        grid = (height // 16, width // 16)
        pyramid = None
        if isinstance(self.patch_embed, ConvStem):
            x, map4, map8 = self.patch_embed(images)
            pyramid = (map4, map8)
        else:
            x = self.patch_embed(images)
        _note(stages, "enc_patch_embed", x)
        positions = self.patch_positions(grid, x.device).expand(len(x), -1, -1)
        rope = rope_phases(positions[:1], self.config.enc_embed_dim // self.config.enc_num_heads)
        for i, block in enumerate(self.enc_blocks):
            x = block(x, rope, through_half=self.config.rope_fp16)
            if i == 0:
                _note(stages, "enc_block0", x)
        return SceneTokens(self.enc_norm(x), positions, grid, pyramid)

    @staticmethod
    def patch_positions(grid: tuple[int, int], device: torch.device) -> Tensor:
        """(1, h * w, 2) integer (row, column) of the patches of an (h, w) grid."""
        rows, columns = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
        return torch.stack([rows, columns], dim=-1).reshape(1, -1, 2)

    @staticmethod
    def _stem_maps(scene: SceneTokens) -> tuple[Tensor, Tensor]:
        if scene.pyramid is None:
            raise ShapeError("scene.pyramid is None; this network needs the stem's maps that `encode` gives")
        return scene.pyramid

    def human_tokens(self, images: Tensor, scene: SceneTokens,
                     stages: dict[str, Tensor] | None = None) -> tuple[Tensor, tuple[int, int]]:
        """Tokens of the human branch (B, nh * nw, Bw) and their grid (nh, nw)."""
        if isinstance(self.backbone, PyramidBackbone):
            map8 = self._stem_maps(scene)[1]
            return self.backbone(map8, scene.as_map(scene.tokens)), (map8.shape[2], map8.shape[3])
        square = pad_to_square(images, self.config.backbone.image_px)
        _note(stages, "img_mhmr", square)
        mean, std = (square.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        tokens = self.backbone.encoder((square * 0.5 + 0.5 - mean) / std)
        side = self.config.backbone.image_px // self.config.backbone.patch_px
        return tokens, (side, side)

    # -- detection

    def human_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of human tokens of an (H, W) network image."""
        backbone = self.config.backbone
        if backbone.kind == "pyramid":
            return size[0] // backbone.patch_px, size[1] // backbone.patch_px
        side = backbone.image_px // backbone.patch_px
        return side, side

    def head_scores(self, human: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Logits (B, n, 1) of all human tokens, and scores (B, nh, nw) that are zero but at local maxima."""
        logits = self.downstream_head.mlp_classif(human)
        score = soft_sigmoid(logits).transpose(1, 2).unflatten(2, grid)
        kernel = self.config.nms_kernel
        peak = score == F.max_pool2d(score, kernel, stride=1, padding=kernel // 2)
        return logits, torch.where(peak, score, 0.0).squeeze(1)

    def detect(self, human: Tensor, grid: tuple[int, int]) -> Detections:
        """Heads: tokens whose score is a local maximum above the threshold, row by row."""
        logits, score = self.head_scores(human, grid)
        found = [torch.nonzero(s >= self.config.detection_threshold) for s in score]
        most = max(len(f) for f in found)
        cells = torch.stack([F.pad(f, (0, 0, 0, most - len(f))) for f in found])
        counts = torch.tensor([len(f) for f in found], device=human.device)
        return Detections(logits, score, cells, torch.arange(most, device=human.device) < counts[:, None])

    def head_locations(self, cell_tokens: Tensor, cells: Tensor) -> Tensor:
        """(B, P, Bw) tokens and their (row, column) cells -> head (u, v) (B, P, 2), human image pixels."""
        offset = self.downstream_head.mlp_offset(cell_tokens)
        return (cells.flip(-1).to(offset.dtype) + 0.5 + offset) * self.config.backbone.patch_px

    def mask_logits(self, human: Tensor, grid: tuple[int, int]) -> Tensor:
        """Person logits (B, nh * patch, nw * patch) at human image size."""
        raw = self.downstream_head.mlp_msk(human).transpose(1, 2).unflatten(2, grid)
        return F.pixel_shuffle(raw, self.config.backbone.patch_px).squeeze(1)

    def to_network_px(self, loc: Tensor, size: tuple[int, int]) -> Tensor:
        """Human image pixels -> pixels of the (H, W) network image, clamped into it."""
        if self.config.backbone.kind == "pyramid":
            return loc.clamp(min=0).minimum(vector((size[1] - 1, size[0] - 1), loc))
        return from_square_px(loc, self.config.backbone.image_px, size)

    def scene_patches(self, loc: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, P, 2) integer (row, column) of the scene patch under each head."""
        return (self.to_network_px(loc, size) // 16).long().flip(-1)

    def mask_in_network(self, mask: Tensor, size: tuple[int, int]) -> Tensor:
        """Mask on the human image (B, R, R) -> (B, H, W)."""
        return mask if self.config.backbone.kind == "pyramid" else crop_from_square(mask, size)

    def prompts(self, human_cells: Tensor, scene_cells: Tensor) -> Tensor:
        """(B, P, Bw) human and (B, P, E) scene tokens of each person -> (B, P, D)."""
        return self.downstream_head.mlp_fuse(torch.cat([human_cells, scene_cells], dim=-1))

    # -- recurrent decoder

    def state_positions(self, device: torch.device) -> Tensor:
        """(1, S, 2) integer (row, column) of the state tokens on a grid of even width."""
        side = math.isqrt(self.config.state_size)
        side += side % 2
        index = torch.arange(self.config.state_size, device=device)
        return torch.stack([index // side, index % side], dim=-1)[None]

    def decode(self, scene: SceneTokens, prompts: Tensor, prompt_pos: Tensor, state: StreamState,
               valid: Tensor | None = None, stages: dict[str, Tensor] | None = None) -> DecoderTaps:
        """Let image, people and state look at each other.

        Args:
            scene: From `encode`.
            prompts: (B, P, D) from `prompts`.
            prompt_pos: (B, P, 2) from `scene_patches`.
            state: Before this frame.
            valid: (B, P) bool; False rows are padding that nobody attends to. None: all are people.
            stages: Receives intermediate tensors.
        """
        config, batch = self.config, len(scene.tokens)
        scene_mean = scene.tokens.mean(dim=1, keepdim=True)
        if state.previous_reset or state.memory is None:
            pose_query = self.pose_token.expand(batch, -1, -1)
        else:
            pose_query = self.pose_retriever.read(state.memory, scene_mean)
        x = torch.cat([pose_query, self.decoder_embed(scene.tokens), prompts], dim=1)
        z = state.tokens
        outside = scene.positions.new_full((batch, 1, 2), -1)  # the pose token has a place of its own
        x_pos = torch.cat([outside, scene.positions, prompt_pos], dim=1)
        z_pos = self.state_positions(x.device)
        x_width, z_width = (config.dec_embed_dim // h for h in (config.dec_num_heads, config.state_dec_num_heads))
        x_rope, z_rope_in_x = rope_phases(x_pos, x_width), rope_phases(z_pos, x_width)
        z_rope, x_rope_in_z = rope_phases(z_pos, z_width), rope_phases(x_pos, z_width)
        mask = None
        if valid is not None:
            mask = F.pad(valid, (x.shape[1] - valid.shape[1], 0), value=True)[:, None, None]

        gated = config.use_ttt3r and not state.previous_reset
        logits, taps = [], {}
        for layer, (block, block_state) in enumerate(zip(self.dec_blocks, self.dec_blocks_state, strict=True), 1):
            new_x, _ = block(x, z, x_rope, z_rope_in_x, mask_x=mask)
            z, logit = block_state(z, x, z_rope, x_rope_in_z, mask_y=mask, want_logits=gated)
            x = new_x  # both streams have read the other's previous layer
            logits.append(logit)
            taps[layer] = x
            if layer == 1:
                _note(stages, "dec_img_1", x)
                _note(stages, "dec_state_1", z)
        final = self.dec_norm(x)
        gate = torch.sigmoid(torch.stack(logits).mean(0))[..., None] if gated else None
        memory = None
        if state.memory is not None:
            memory = self.pose_retriever.write(state.memory, scene_mean, final[:, :1])
        _note(stages, "img_level_feat", scene_mean)
        _note(stages, "img_pos", scene.positions)
        _note(stages, "state_pos", z_pos)
        return DecoderTaps(pose_query, taps[max(1, config.dec_depth * 2 // 4)],
                           taps[max(1, config.dec_depth * 3 // 4)], final, self.dec_norm_state(z), memory, gate,
                           prompts.shape[1])

    # -- heads

    def camera_K(self, size: tuple[int, int], given: Tensor | np.ndarray | None, batch: int,
                 like: Tensor) -> Tensor:
        """(B, 3, 3) intrinsics of the (H, W) network image: the given ones, or the canonical camera."""
        if given is not None:
            matrix = torch.as_tensor(given, dtype=like.dtype, device=like.device)
            check_shape("camera_K", matrix, (3, 3) if matrix.ndim == 2 else (batch, 3, 3))
            return matrix.expand(batch, 3, 3)
        height, width = size
        f = self.config.canonical_focal * self.config.image_width_px
        matrix = like.new_tensor([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]])
        return matrix.expand(batch, 3, 3)

    def metric_scale(self, camera_K: Tensor) -> Tensor:
        """(B,) metres per unit of canonical depth: a longer lens makes the same picture from farther away."""
        return (camera_K[:, 0, 0] + camera_K[:, 1, 1]) / (2 * self.config.canonical_focal * self.config.image_width_px)

    def camera(self, taps: DecoderTaps, stages: dict[str, Tensor] | None = None) -> Tensor | None:
        """(B, 7) camera pose: t, quaternion wxyz with w >= 0; None without the head."""
        if not self.config.pose_head:
            return None
        raw = self.downstream_head.pose_head["mlp"](taps.pose_out[:, 0])
        _note(stages, "pose_raw", raw)
        return decode_pose(raw)

    def dense(self, scene: SceneTokens, taps: DecoderTaps, camera_K: Tensor | np.ndarray | None = None,
              outputs: frozenset[str] = ALL_OUTPUTS, stages: dict[str, Tensor] | None = None) -> Dense:
        """Per-pixel heads; `camera_K` (3, 3) or (B, 3, 3) of the network image matters for ray_depth only."""
        heads, config = self.downstream_head, self.config
        size = (16 * scene.grid[0], 16 * scene.grid[1])
        last = taps.image_rows(taps.final)
        if config.dpt.taps == "stem":
            fine = self._stem_maps(scene)
        else:
            fine = (scene.as_map(scene.tokens), scene.as_map(taps.image_rows(taps.half)))
        coarse = scene.as_map(taps.image_rows(taps.three_quarter))

        def run(head: DptHead, tokens: Tensor, name: str) -> Tensor:
            raw = head((*fine, coarse, scene.as_map(tokens)))
            if config.dpt.output_stride != 1:
                raw = F.interpolate(raw, size=size, mode="bilinear", align_corners=False)
            _note(stages, name, raw)
            return raw

        raw = run(heads.dpt_self, last, "dpt_self_raw")
        if config.dense == "ray_depth":
            K = self.camera_K(size, camera_K, len(raw), raw)
            depth = raw[:, 0].exp() * self.metric_scale(K)[:, None, None]
            result = Dense(pixel_rays(K, size) * depth[..., None], 1 + raw[:, 1].exp())
        else:
            result = Dense(*decode_points(raw))
        if config.world_head and "world" in outputs:
            rope = rope_phases(scene.positions[:1], config.dec_embed_dim // config.dec_num_heads)
            tokens = last
            for block in heads.final_transform:
                tokens = block(tokens, taps.pose_out, rope)
            _note(stages, "world_tokens", tokens)
            points, confidence = decode_points(run(heads.dpt_cross, tokens, "dpt_cross_raw"))
            result = dataclasses.replace(result, points_world=points, confidence_world=confidence)
        if config.rgb_head and "rgb" in outputs:
            result = dataclasses.replace(result, rgb=decode_rgb(run(heads.dpt_rgb, last, "dpt_rgb_raw")))
        return result

    def head_depth(self, taps: DecoderTaps, camera_K: Tensor) -> Tensor:
        """(B, P) z of each head from its token alone, metres (window networks)."""
        raw = self.downstream_head.deccam(taps.human_out)[..., 2]
        return raw.exp() * self.metric_scale(camera_K)[:, None]

    def bodies(self, taps: DecoderTaps, human_cells: Tensor, *, images: Tensor | None = None,
               mask: Tensor | None = None, loc: Tensor | None = None,
               camera_K: Tensor | np.ndarray | None = None, depth_m: Tensor | None = None,
               valid: Tensor | None = None, stages: dict[str, Tensor] | None = None) -> Bodies:
        """Body of each person.

        Args:
            taps: From `decode`.
            human_cells: (B, P, Bw) human tokens at the people's cells.
            images: (B, 3, H, W), window head only, like all that follow.
            mask: (B, H, W) person probability in the network image.
            loc: (B, P, 2) head (u, v) in the network image.
            camera_K: (3, 3) or (B, 3, 3) of the network image; None: the canonical camera.
            depth_m: (B, P) head depth that places the window; None: the token head's own. Training passes truth.
            valid: (B, P) bool; rows that are padding are not looked at.
            stages: Receives intermediate tensors.
        """
        heads = self.downstream_head
        if self.config.body_head == "window":
            if images is None or mask is None or loc is None:
                raise ShapeError("bodies of a window head need images, mask and loc; got None for one of them")
            return self._window_bodies(taps, images, mask, loc, camera_K, depth_m, valid)
        joined = torch.cat([taps.human_out, human_cells], dim=-1)
        raw = {name: getattr(heads, name)(joined) for name in ("decpose", "decshape", "decexpression")}
        raw["deccam"] = heads.deccam(taps.human_out)
        for name, value in raw.items():
            _note(stages, f"{name}_raw", value)
        return Bodies(rotmat=rotations_from_6d((raw["decpose"] + heads.init_body_pose).unflatten(-1, (JOINTS, 6))),
                      shape=raw["decshape"] + heads.init_betas,
                      expression=raw["decexpression"] + heads.init_expression,
                      transl=exp_map(raw["deccam"]))

    def _window_bodies(self, taps: DecoderTaps, images: Tensor, mask: Tensor, loc: Tensor,
                       camera_K: Tensor | np.ndarray | None, depth_m: Tensor | None,
                       valid: Tensor | None) -> Bodies:
        heads, config = self.downstream_head, self.config
        batch, people = loc.shape[:2]
        height, width = images.shape[-2:]
        K = self.camera_K((height, width), camera_K, batch, images)
        token_depth = self.head_depth(taps, K)
        # Placement carries no gradients: depth and location have their own losses.
        start_depth = (token_depth if depth_m is None else depth_m).detach()
        loc = loc.detach()
        focal = (K[:, 0, 0] + K[:, 1, 1])[:, None] / 2
        window_height = (WINDOW_HEIGHT_M * focal / start_depth).clamp(min=24.0).minimum(vector((4 * height,), loc))
        window_width = window_height * config.window_size[0] / config.window_size[1]

        if valid is None or (self.training and people and not bool(valid.any())):
            # Everybody; if nobody is valid, padding is looked at, so that every parameter has a gradient.
            rows, slots = (torch.arange(n, device=loc.device) for n in (batch, people))
            rows, slots = rows[:, None].expand(-1, people).flatten(), slots.expand(batch, -1).flatten()
        else:
            rows, slots = valid.nonzero(as_tuple=True)
        channels = torch.cat([images + 1.0, mask.detach()[:, None]], dim=1)  # outside is zero: black, nobody
        windows = cut_windows(channels[rows], loc[rows, slots], window_width[rows, slots],
                              window_height[rows, slots], config.window_size)
        windows = windows - windows.new_tensor([1.0, 1.0, 1.0, 0.0]).view(1, 4, 1, 1)
        found, features = heads.window(windows, taps.human_out[rows, slots])
        raw = {name: loc.new_zeros(batch, people, n).index_put((rows, slots), found[name].to(loc.dtype))
               for name, n in heads.window.OUTPUTS.items()}

        uv = loc + raw["refine"][..., :2] * window_width[..., None]
        depth = start_depth * raw["refine"][..., 2].exp()
        ray = rays_through(uv, K)
        pose6d = heads.init_body_pose.view(JOINTS, 6).expand(batch, people, -1, -1)
        pose6d = torch.cat([pose6d[:, :, :BODY_JOINTS] + raw["pose6d"].unflatten(-1, (BODY_JOINTS, 6)),
                            pose6d[:, :, BODY_JOINTS:]], dim=2)
        rotmat = rotations_from_6d(pose6d)
        # A body looks the same in its window wherever it stands, so the root is predicted along its own ray.
        joints = raw["joints"].unflatten(-1, (BODY_JOINTS, 3))
        rotmat = torch.cat([(turn_to_ray(ray) @ rotmat[:, :, 0])[:, :, None], rotmat[:, :, 1:]], dim=2)
        return Bodies(
            rotmat=rotmat, shape=raw["betas"] + heads.init_betas,
            expression=heads.init_expression.expand(batch, people, -1), transl=ray * depth[..., None],
            window=WindowFit(token_depth, uv, depth,
                             loc[:, :, None] + joints[..., :2] * window_width[..., None, None], joints[..., 2],
                             window_width, features, rows, slots))

    # -- one frame of a stream

    @torch.no_grad()
    def step(self, image: Tensor, state: StreamState | None, *, update: bool = True, reset: bool = False,
             camera_K: Tensor | np.ndarray | None = None, outputs: frozenset[str] = ALL_OUTPUTS,
             collect_stages: bool = False) -> tuple[NetworkOutput, StreamState]:
        """Process one frame.

        Args:
            image: (1, 3, H, W) in [-1, 1], multiples of 16.
            state: From the previous step; None before the first frame.
            update: False: give outputs but leave the memory as it was.
            reset: True: forget everything but identities *after* this frame.
            camera_K: (3, 3) intrinsics of this network image; used by ray_depth and window networks only.
            outputs: Optional parts wanted, of "world", "rgb", "mask".
            collect_stages: Keep intermediate tensors in the output.

        Raises:
            ShapeError: The image or K has a wrong shape.
        """
        check_shape("image", image, (1, 3, None, None))
        state = self.initial_state() if state is None else state
        stages: dict[str, Tensor] | None = {} if collect_stages else None
        size = (image.shape[2], image.shape[3])

        scene = self.encode(image, stages)
        human, grid = self.human_tokens(image, scene, stages)
        found = self.detect(human, grid)
        human_cells = take_cells(human, found.cells, grid)
        loc = self.head_locations(human_cells, found.cells)
        patches = self.scene_patches(loc, size)
        prompts = self.prompts(human_cells, take_cells(scene.tokens, patches, scene.grid))
        taps = self.decode(scene, prompts, patches, state, stages=stages)
        pose = self.camera(taps, stages)
        dense = self.dense(scene, taps, camera_K, outputs, stages)
        mask = None
        if self.config.mask_head and ("mask" in outputs or self.config.body_head == "window"):
            mask = soft_sigmoid(self.mask_logits(human, grid))
        network_mask = None if mask is None else self.mask_in_network(mask, size)
        bodies = self.bodies(taps, human_cells, images=image, mask=network_mask,
                             loc=self.to_network_px(loc, size), camera_K=camera_K, stages=stages)
        ids, bank = assign_ids(state.bank, taps.human_out[0].float().cpu().numpy(), self.config.track_bank_cap)
        after = dataclasses.replace(self.next_state(state, taps, update=update, reset=reset), bank=bank)

        if stages is not None:
            stages |= {"enc_tokens": scene.tokens, "dino_tokens": human, "det_logits": found.logits,
                       "det_offset": self.downstream_head.mlp_offset(human_cells)[0], "human_prompt": prompts,
                       "human_pos": patches, "state_in": state.tokens, "pose_query": taps.pose_query,
                       "new_state": taps.new_tokens, "dec_tap_half": taps.half,
                       "dec_tap_threequarter": taps.three_quarter, "dec_final": taps.final,
                       "state_after": after.tokens}
            memory = {"mem_in": state.memory, "new_mem": taps.new_memory, "mem_after": after.memory}
            stages |= {name: value for name, value in memory.items() if value is not None}
        return NetworkOutput(
            pts3d_in_self_view=dense.points, conf_self=dense.confidence, camera_pose=pose,
            pts3d_in_other_view=dense.points_world, conf=dense.confidence_world, rgb=dense.rgb,
            smpl_shape=bodies.shape, smpl_transl=bodies.transl, smpl_rotmat=bodies.rotmat,
            smpl_expression=bodies.expression, smpl_id=torch.from_numpy(ids)[None],
            msk=None if mask is None else mask[..., None], smpl_scores=found.scores[..., None], smpl_loc=loc,
            detection_score=take_cells(found.scores.flatten(1)[..., None], found.cells, grid)[..., 0],
            window=bodies.window, stages=stages or {}), after
