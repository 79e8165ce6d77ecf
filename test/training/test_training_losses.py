"""Loss terms: zero where they must be, right where a hand can compute them, gradients where needed."""

from __future__ import annotations

import math

import torch

from human_scene_ros.training import losses


def test_masked_mean_ignores_what_is_not_valid_and_survives_nothing_valid():
    values = torch.tensor([1.0, 5.0, 100.0], requires_grad=True)
    assert losses.masked_mean(values, torch.tensor([True, True, False])).item() == 3.0
    empty = losses.masked_mean(values, torch.zeros(3, dtype=torch.bool))
    empty.backward()
    assert empty.item() == 0.0
    assert torch.equal(values.grad, torch.zeros(3))


def test_log_depth_is_least_at_the_truth_and_blind_to_sky():
    target = torch.tensor([[[2.0, 0.0], [4.0, 1.0]]])
    right = target.clamp_min(1e-3).log()
    confidence = torch.full_like(target, 1.5)
    at_truth = losses.log_depth(right, confidence, target)
    sky_changed = right.clone()
    sky_changed[0, 0, 1] += 3.0
    assert torch.equal(at_truth, losses.log_depth(sky_changed, confidence, target))
    off = losses.log_depth(right + 0.1, confidence, target)
    # The error: half |0.1|, half |e^0.1 - 1|; the calibration of confidence adds 0.5 * 1.5 times as much.
    assert math.isclose(float(off - at_truth), 0.5 * (0.1 + math.expm1(0.1)) * 1.75, rel_tol=1e-4)


def test_log_depth_fears_too_far_more_than_too_near():
    target = torch.ones(1, 1, 1)
    confidence = torch.full_like(target, 1.5)

    def loss(log_ratio: float) -> float:
        return float(losses.log_depth(torch.full_like(target, log_ratio), confidence, target))

    assert loss(1.0) > loss(-1.0)
    # Past the limit only the logarithm grows.
    assert math.isclose(loss(3.0) - loss(2.0), 0.5 * 1.75, rel_tol=1e-4)


def test_confidence_settles_at_alpha_over_error_and_does_not_weigh_depth():
    target = torch.full((1, 1, 1), 2.0)
    log_prediction = (target.log() + 0.1).requires_grad_()
    error = 0.5 * (0.1 + math.expm1(0.1))
    confidence = torch.tensor([[[0.4 / error]]], requires_grad=True)  # the optimum
    losses.log_depth(log_prediction, confidence, target, alpha=0.4).backward()
    assert abs(float(confidence.grad)) < 1e-6
    assert math.isclose(float(log_prediction.grad), 0.5 * (1 + math.exp(0.1)), rel_tol=1e-5)


def test_depth_gradient_ignores_a_global_scale_and_sees_a_tilt():
    target = torch.rand(1, 16, 20) + 1.0
    assert losses.depth_gradient(target.log() + 0.7, target).abs() < 1e-6
    ramp = torch.linspace(0, 1, 20).expand(1, 16, 20)
    assert losses.depth_gradient(target.log() + ramp, target) > 0.01


def test_heat_map_is_one_in_the_own_cell_and_zero_without_people():
    cells = torch.tensor([[[2.9, 1.1], [7.0, 4.0]]])
    bumps = losses.heat_map(cells, torch.tensor([[True, False]]), 6, 10)
    assert bumps[0, 1, 2] == 1.0
    assert bumps.argmax() == 1 * 10 + 2
    assert losses.heat_map(cells, torch.zeros(1, 2, dtype=torch.bool), 6, 10).abs().sum() == 0


def test_detection_loss_falls_when_the_right_cell_rises_and_ignores_ignored_cells():
    target = losses.heat_map(torch.tensor([[[2.0, 1.0]]]), torch.tensor([[True]]), 4, 5)
    ignore = torch.zeros_like(target, dtype=torch.bool)
    low = torch.full_like(target, -3.0)
    high = low.clone()
    high[0, 1, 2] = 3.0
    assert losses.detection(high, target, ignore) < 0.1 * losses.detection(low, target, ignore)
    wrong = high.clone()
    wrong[0, 3, 4] = 3.0
    assert losses.detection(wrong, target, ignore) > losses.detection(high, target, ignore) + 1.0
    ignore[0, 3, 4] = True
    assert torch.isclose(losses.detection(wrong, target, ignore), losses.detection(high, target, ignore), atol=1e-2)


def test_rotation_loss_is_two_minus_two_cosines():
    angle = 0.4
    turned = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    assert math.isclose(float(losses.rotation(turned, torch.eye(3))), 2 * (1 - math.cos(angle)), rel_tol=1e-5)


def test_person_mask_loss_prefers_the_truth():
    person = torch.zeros(1, 8, 8, dtype=torch.bool)
    person[0, 2:6, 3:5] = True
    right = torch.where(person, 8.0, -8.0)
    assert losses.person_mask(right, person) < 0.05
    assert losses.person_mask(-right, person) > 2.0
