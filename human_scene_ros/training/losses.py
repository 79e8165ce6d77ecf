"""One function per loss term. Tensors are batch first; `valid` masks select what counts.

Sources: the confidence term of DUSt3R (arXiv 2312.14132, eq. 4) without its weighting, multi-scale gradient matching
(MiDaS, arXiv 1907.01341, eq. 11), penalty-reduced focal loss on a head heat map (CenterNet,
arXiv 1904.07850, eq. 1), rotation matrices and joints as in SPIN (arXiv 1909.12828) and CHROMM.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (torch's own idiom)
from torch import Tensor

MAX_LOG_ERROR = 1.5
"""Beyond this logarithm of a ratio the relative error stops growing: a single wall in front of the lens would rule."""


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of `values` where `valid`; 0 with gradients when nothing is valid."""
    weight = valid.to(values.dtype).expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(1.0)


def log_depth(log_prediction: Tensor, confidence: Tensor, target_m: Tensor, alpha: float = 0.4) -> Tensor:
    """Mean of |log z - log z*| and |z / z* - 1|, plus the terms that teach confidence; (B, H, W) each; target 0 means
    no truth (sky).

    Where depth is a guess the logarithm alone settles for the median; the relative error (AbsRel), which is what
    depth is judged by, asks for less, because too far can be wrong by any factor and too near only by one.
    Confidence C = 1 + exp(raw) settles at alpha / error. It learns from the error without weighting it: a small
    network would otherwise buy confidence where depth is easy and give up where it is not.
    """
    valid = target_m > 0
    log_error = log_prediction - target_m.clamp_min(1e-3).log()
    error = 0.5 * (log_error.abs() + log_error.clamp_max(MAX_LOG_ERROR).expm1().abs())
    calibration = confidence * error.detach() - alpha * confidence.log()
    return masked_mean(error + 0.5 * calibration, valid) + 0.02 * masked_mean(confidence - 1.0, ~valid)


def depth_gradient(log_prediction: Tensor, target_m: Tensor, scales: int = 3) -> Tensor:
    """Multi-scale L1 of the spatial gradients of log depth error; keeps edges where they are."""
    valid = target_m > 0
    difference = torch.where(valid, log_prediction - target_m.clamp_min(1e-3).log(), 0.0)
    total = log_prediction.new_zeros(())
    for scale in range(scales):
        d, m = difference[:, :: 2**scale, :: 2**scale], valid[:, :: 2**scale, :: 2**scale]
        total = total + masked_mean((d[:, :, 1:] - d[:, :, :-1]).abs(), m[:, :, 1:] & m[:, :, :-1])
        total = total + masked_mean((d[:, 1:] - d[:, :-1]).abs(), m[:, 1:] & m[:, :-1])
    return total / scales


def person_mask(logits: Tensor, person: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice; (B, H, W) logits and bool truth."""
    truth = person.to(logits.dtype)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth)
    probability = logits.sigmoid()
    overlap = (probability * truth).sum(dim=(1, 2))
    dice = 1.0 - (2.0 * overlap + 10.0) / (probability.sum(dim=(1, 2)) + truth.sum(dim=(1, 2)) + 10.0)
    return cross_entropy + 0.3 * dice.mean()


def heat_map(cell_xy: Tensor, valid: Tensor, height: int, width: int, sigma: float = 0.8) -> Tensor:
    """(B, height, width) Gaussian bumps of people at (B, P, 2) positions in cells; exactly 1 at the own cell."""
    ys = torch.arange(height, device=cell_xy.device, dtype=cell_xy.dtype)[None, None, :, None]
    xs = torch.arange(width, device=cell_xy.device, dtype=cell_xy.dtype)[None, None, None, :]
    own = cell_xy.floor()
    square = (xs - own[..., 0, None, None]) ** 2 + (ys - own[..., 1, None, None]) ** 2
    bumps = torch.exp(-square / (2 * sigma**2)) * valid[..., None, None]
    return bumps.amax(dim=1) if cell_xy.shape[1] else bumps.new_zeros(cell_xy.shape[0], height, width)


def detection(logits: Tensor, target: Tensor, ignore: Tensor) -> Tensor:
    """Penalty-reduced focal loss; (B, h, w) logits, heat map and bool cells without a say."""
    positive = (target > 0.999) & ~ignore
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    p = logits.sigmoid()
    hit = (1 - p) ** 2 * log_p * positive
    miss = p**2 * (1 - target) ** 4 * log_not_p * (~positive & ~ignore)
    return -(hit.sum() + miss.sum()) / positive.sum().clamp_min(1)


def rotation(rotation_matrices: Tensor, target: Tensor) -> Tensor:
    """(..., 3, 3) -> (...) squared Frobenius distance / 2 = 2 (1 - cos angle) for rotations."""
    return 0.5 * (rotation_matrices - target).square().sum(dim=(-1, -2))
