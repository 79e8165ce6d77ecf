"""Building blocks of the network: attention with 2-D rotary positions, pre-norm blocks, conv blocks, dense head.

Module and parameter names are those of the official checkpoints, so that these load without a key map.
Everything is batch first. LayerNorm is affine with eps 1e-6 and GELU is the exact (erf) form everywhere.

Sources: RoPE (arXiv 2104.09864) applied to image rows and columns, ViT blocks (arXiv 2010.11929), LayerScale
(arXiv 2103.17239), dense prediction head (DPT, arXiv 2103.13413), adaptive LayerNorm (DiT, arXiv 2212.09748).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own idiom)
from torch import Tensor, nn

ROPE_BASE = 100.0


def layer_norm(dim: int) -> nn.LayerNorm:
    """The LayerNorm used throughout."""
    return nn.LayerNorm(dim, eps=1e-6)


class Rope(NamedTuple):
    """Rotary phases of one token set for one head width d; (B, 1, N, 2, d / 4) each, axis 3 is (y, x)."""

    cos: Tensor
    sin: Tensor


def rope_phases(positions: Tensor, head_dim: int) -> Rope:
    """Phases of integer (y, x) positions (B, N, 2); negative positions turn the other way."""
    quarter = head_dim // 4
    steps = torch.arange(quarter, device=positions.device, dtype=torch.float32)
    angles = positions.float()[:, None, :, :, None] * ROPE_BASE ** (-steps / quarter)
    return Rope(angles.cos(), angles.sin())


def rotate(x: Tensor, rope: Rope, through_half: bool = False) -> Tensor:
    """Apply `rope` to (B, heads, N, d): the first half of the channels encodes y, the second x.

    With `through_half` input and result are rounded to float16, as the official encoder does.
    """
    if through_half:
        x = x.half().float()
    u, v = x.unflatten(-1, (2, 2, -1)).unbind(-2)
    turned = torch.stack([u * rope.cos - v * rope.sin, v * rope.cos + u * rope.sin], dim=-2).flatten(-3)
    return turned.half().float() if through_half else turned


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, heads * d) -> (B, heads, N, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head self-attention with fused [q | k | v] projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rope: Rope | None = None, key_mask: Tensor | None = None,
                through_half: bool = False) -> Tensor:
        """(B, N, D) -> (B, N, D); `key_mask` (B, 1, 1, N) bool, False = not attended."""
        q, k, v = (split_heads(t, self.heads) for t in self.qkv(x).chunk(3, dim=-1))
        if rope is not None:
            q, k = rotate(q, rope, through_half), rotate(k, rope, through_half)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
        return self.proj(y.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Multi-head attention from one stream to another."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = nn.Linear(dim, dim)
        self.projk = nn.Linear(dim, dim)
        self.projv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, rope_x: Rope | None = None, rope_y: Rope | None = None,
                key_mask: Tensor | None = None, want_logits: bool = False) -> tuple[Tensor, Tensor | None]:
        """Queries from x (B, N, D), keys and values from y (B, M, D).

        Returns:
            (B, N, D), and with `want_logits` the (B, N) mean over heads and attended keys of the scaled
            logits. That mean is linear in the keys, q . mean(k), so the logits are never materialised.
        """
        q, k, v = (split_heads(t, self.heads) for t in (self.projq(x), self.projk(y), self.projv(y)))
        if rope_x is not None and rope_y is not None:
            q, k = rotate(q, rope_x), rotate(k, rope_y)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
        mean_logit = None
        if want_logits:
            if key_mask is None:
                mean_key = k.mean(dim=2, keepdim=True)
            else:
                weight = key_mask.transpose(2, 3).to(k.dtype)
                mean_key = (k * weight).sum(2, keepdim=True) / weight.sum(2, keepdim=True)
            mean_logit = (q * mean_key).sum(-1).mean(1) * q.shape[-1] ** -0.5
        return self.proj(attended.transpose(1, 2).flatten(2)), mean_logit


class Mlp(nn.Module):
    """Linear, GELU, Linear, with the key names of transformer blocks."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Layers(nn.Module):
    """Holder that gives its layers the key prefix of the human heads."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)


class HeadMlp(nn.Module):
    """Linear, GELU, Linear, with the key names of the human heads (`mlp.layers.0`, `mlp.layers.2`)."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.mlp = Layers(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, out))

    @property
    def last(self) -> nn.Linear:
        """The output layer, for initialisation."""
        layer = self.mlp.layers[2]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp.layers(x)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = layer_norm(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim), dim)

    def forward(self, x: Tensor, rope: Rope | None = None, through_half: bool = False) -> Tensor:
        x = x + self.attn(self.norm1(x), rope, through_half=through_half)
        return x + self.mlp(self.norm2(x))


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class ScaledBlock(nn.Module):
    """Pre-norm block with LayerScale and no positions: the block of DINOv2."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = SelfAttention(dim, heads)
        self.ls1 = LayerScale(dim)
        self.norm2 = layer_norm(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim), dim)
        self.ls2 = LayerScale(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to the other stream, MLP; all pre-norm."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = layer_norm(dim)
        self.norm_y = layer_norm(dim)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = layer_norm(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim), dim)

    def forward(self, x: Tensor, y: Tensor, rope_x: Rope | None = None, rope_y: Rope | None = None,
                mask_x: Tensor | None = None, mask_y: Tensor | None = None,
                want_logits: bool = False) -> tuple[Tensor, Tensor | None]:
        """Update x (B, N, D) from itself and y (B, M, D); masks as in the attentions."""
        x = x + self.attn(self.norm1(x), rope_x, mask_x)
        crossed, mean_logit = self.cross_attn(self.norm2(x), self.norm_y(y), rope_x, rope_y, mask_y, want_logits)
        x = x + crossed
        return x + self.mlp(self.norm3(x)), mean_logit


class ModulatedNorm(nn.Module):
    """LayerNorm whose shift and scale come from a conditioning vector."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = layer_norm(dim)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.mlp(condition).chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift


class ModulatedBlock(nn.Module):
    """Transformer block with modulated norms: turns self-view tokens into world-view tokens."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = ModulatedNorm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = ModulatedNorm(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim), dim)

    def forward(self, x: Tensor, condition: Tensor, rope: Rope) -> Tensor:
        x = x + self.attn(self.norm1(x, condition), rope)
        return x + self.mlp(self.norm2(x, condition))


class PatchEmbed(nn.Module):
    """Convolution with kernel = stride; tokens row by row."""

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


def conv_bn_gelu(dim_in: int, dim_out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, GELU."""
    return nn.Sequential(nn.Conv2d(dim_in, dim_out, 3, stride, 1, bias=False), nn.BatchNorm2d(dim_out), nn.GELU())


class ConvResidual(nn.Module):
    """x + BN(conv(GELU(BN(conv(x))))), then GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*conv_bn_gelu(dim, dim), nn.Conv2d(dim, dim, 3, 1, 1, bias=False),
                                  nn.BatchNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.body(x))


class ConvStem(nn.Module):
    """Four stride-2 convolutions; gives tokens at stride 16 and the feature maps at strides 4 and 8."""

    def __init__(self, dims: tuple[int, int, int], dim: int) -> None:
        super().__init__()
        self.stride2 = conv_bn_gelu(3, dims[0], 2)
        self.stride4 = nn.Sequential(conv_bn_gelu(dims[0], dims[1], 2), ConvResidual(dims[1]))
        self.stride8 = nn.Sequential(conv_bn_gelu(dims[1], dims[2], 2), ConvResidual(dims[2]))
        self.proj = nn.Conv2d(dims[2], dim, 3, 2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) -> tokens (B, HW/256, dim), map (B, C4, H/4, W/4), map (B, C8, H/8, W/8)."""
        map4 = self.stride4(self.stride2(images))
        map8 = self.stride8(map4)
        return self.proj(map8).flatten(2).transpose(1, 2), map4, map8


class DinoEncoder(nn.Module):
    """DINOv2 without registers: class token, learned positions, LayerScale blocks."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_ratio: float, patch: int, table_side: int,
                 unused_keys: bool = True) -> None:
        super().__init__()
        self.table_side = table_side
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + table_side * table_side, dim))
        if unused_keys:
            self.mask_token = nn.Parameter(torch.zeros(1, dim))  # in every checkpoint, unused at inference
        self.patch_embed = PatchEmbed(3, dim, patch)
        self.blocks = nn.ModuleList(ScaledBlock(dim, heads, mlp_ratio) for _ in range(depth))
        self.norm = layer_norm(dim)

    def positions(self, side: int) -> Tensor:
        """(1, 1 + side^2, dim): the learned table, resized bicubically.

        The resize is called with the scale (side + 0.1) / table_side, not with the output size: the 0.1 was
        there when the weights were trained and shifts the sampling grid.
        """
        table = self.pos_embed[:, 1:].unflatten(1, (self.table_side, self.table_side)).permute(0, 3, 1, 2)
        scale = (side + 0.1) / self.table_side
        table = F.interpolate(table.float(), scale_factor=(scale, scale), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], table.flatten(2).transpose(1, 2).to(self.pos_embed.dtype)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Square images in ImageNet normalisation (B, 3, R, R) -> (B, n * n, dim), class token dropped."""
        x = self.patch_embed(images)
        side = round(x.shape[1] ** 0.5)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions(side)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:]


class DinoBackbone(nn.Module):
    """Holder that gives DINOv2 the key prefix of the official checkpoints."""

    def __init__(self, encoder: DinoEncoder) -> None:
        super().__init__()
        self.encoder = encoder


class PyramidBackbone(nn.Module):
    """Human tokens on the stride-8 grid, from the stem's map and the scene tokens."""

    def __init__(self, stem_dim: int, scene_dim: int, dim: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(stem_dim, dim, 1)
        self.top = nn.Conv2d(scene_dim, dim, 1)
        self.mix = ConvResidual(dim)

    def forward(self, map8: Tensor, scene_map: Tensor) -> Tensor:
        """(B, C8, h8, w8) and (B, E, h8 / 2, w8 / 2) -> (B, h8 * w8, dim)."""
        top = F.interpolate(self.top(scene_map), size=map8.shape[-2:], mode="bilinear", align_corners=False)
        return self.mix(self.lateral(map8) + top).flatten(2).transpose(1, 2)


class ConvUnit(nn.Module):
    """Residual pair of 3x3 convolutions, pre-activated."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, 1, 1)
        self.conv2 = nn.Conv2d(dim, dim, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """One step from coarse to fine: add the skip, refine, double the size, project."""

    def __init__(self, dim: int, with_skip: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(dim, dim, 1)
        if with_skip:
            self.resConfUnit1 = ConvUnit(dim)
        self.resConfUnit2 = ConvUnit(dim)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        return self.out_conv(doubled(self.resConfUnit2(x)))


def doubled(x: Tensor) -> Tensor:
    """Bilinear x2 with corners aligned, as the official weights expect."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class DptScratch(nn.Module):
    """Holder of the fusion path under its official key prefix."""

    def __init__(self, layer_dims: tuple[int, int, int, int], dim: int, unused_keys: bool) -> None:
        super().__init__()
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(d, dim, 3, 1, 1, bias=False) for d in layer_dims)
        if unused_keys:  # official checkpoints store these tensors twice
            self.layer_rn = nn.ModuleList([self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn])
        self.refinenet1, self.refinenet2, self.refinenet3 = (Fusion(dim, with_skip=True) for _ in range(3))
        self.refinenet4 = Fusion(dim, with_skip=unused_keys)  # nothing is coarser, so its skip unit never runs

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Reassembled maps, fine to coarse -> (B, dim, 8 h, 8 w) for tokens on an (h, w) grid."""
        convs = (self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn)
        maps = [conv(level) for conv, level in zip(convs, levels, strict=True)]
        height, width = maps[2].shape[-2:]
        x = self.refinenet4(maps[3])[..., :height, :width]  # odd h or w: the doubled map is one too large
        return self.refinenet1(self.refinenet2(self.refinenet3(x, maps[2]), maps[1]), maps[0])


class DptHead(nn.Module):
    """Four levels of features -> one dense map.

    Args:
        level_dims: Channels of the four inputs.
        layer_dims: Channels after reassembling.
        feature_dim: Width of the fusion path.
        last_dim: Width of the output convolutions.
        out_channels: Channels of the result.
        stem_taps: Levels 0 and 1 are feature maps at strides 4 and 8 instead of tokens at stride 16.
        full_size: Result at stride 1; otherwise the last inner doubling is left out (stride 2).
        unused_keys: Also hold the skip unit of level 4, which official checkpoints carry without using it.
    """

    def __init__(self, level_dims: tuple[int, int, int, int], layer_dims: tuple[int, int, int, int],
                 feature_dim: int, last_dim: int, out_channels: int, *, stem_taps: bool = False,
                 full_size: bool = True, unused_keys: bool = True) -> None:
        super().__init__()
        self.full_size = full_size
        self.scratch = DptScratch(layer_dims, feature_dim, unused_keys)
        self.head = nn.Sequential(
            nn.Conv2d(feature_dim, last_dim, 3, 1, 1), nn.Identity(), nn.Conv2d(last_dim, last_dim, 3, 1, 1),
            nn.ReLU(), nn.Conv2d(last_dim, out_channels, 1))
        reduce = [nn.Conv2d(a, b, 1) for a, b in zip(level_dims, layer_dims, strict=True)]
        resize: list[list[nn.Module]] = [
            [] if stem_taps else [nn.ConvTranspose2d(layer_dims[0], layer_dims[0], 4, 4)],
            [] if stem_taps else [nn.ConvTranspose2d(layer_dims[1], layer_dims[1], 2, 2)],
            [],
            [nn.Conv2d(layer_dims[3], layer_dims[3], 3, 2, 1)]]
        self.act_postprocess = nn.ModuleList(nn.Sequential(a, *b) for a, b in zip(reduce, resize, strict=True))

    def forward(self, levels: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
        """Maps (B, C, h, w) of the four levels -> (B, out_channels, 16 h, 16 w), or half that size."""
        x = self.scratch([reassemble(level) for reassemble, level in zip(self.act_postprocess, levels, strict=True)])
        x = self.head[0](x)
        return self.head[2:](doubled(x) if self.full_size else x)
