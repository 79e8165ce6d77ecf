"""The nano structure: shapes, geometry of its heads, and that it computes the same in batches as alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny_network import NANO, images, make, with_people

from human_scene_ros.errors import ShapeError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.model.formulas import cut_windows, rotations_from_6d, take_cells, turn_to_ray, window_places
from human_scene_ros.model.network import PRODUCT_OUTPUTS, HumanSceneNetwork
from human_scene_ros.model.presets import PRESETS

SIZE = (64, 96)
K = torch.tensor([[90.0, 0.0, 47.0], [0.0, 90.0, 32.0], [0.0, 0.0, 1.0]])


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_the_preset_fits_the_shipping_limit_and_runs_at_its_size():
    torch.manual_seed(0)
    network = HumanSceneNetwork(PRESETS["nano"]).eval()
    assert sum(v.numel() for v in network.state_dict().values()) * 2 < 20e6, "float16 file of at most 20 MB"
    image = images(1, 112, 160)
    output, state = with_people(network, image, 3).step(image, None, outputs=PRODUCT_OUTPUTS)
    assert output.pts3d_in_self_view.shape == (1, 112, 160, 3)
    assert output.conf_self.shape == (1, 112, 160)
    assert output.msk.shape == (1, 112, 160, 1)
    assert output.smpl_scores.shape == (1, 14, 20, 1)
    assert output.smpl_rotmat.shape == (1, 3, 53, 3, 3)
    assert output.smpl_transl.shape == (1, 3, 3)
    assert output.window.joints_uv_px.shape == (1, 3, 22, 2)
    assert output.camera_pose is None
    assert output.rgb is None
    assert state.tokens.shape == (1, 32, 128)
    assert state.memory is None
    assert (output.detection_score >= network.config.detection_threshold).all()


def test_an_untrained_network_puts_upright_mean_bodies_at_about_three_metres():
    torch.manual_seed(0)
    network = HumanSceneNetwork(PRESETS["nano"]).eval()
    image = images(1, 112, 160)
    output, _ = with_people(network, image, 2).step(image, None)
    assert ((output.smpl_transl[..., 2] > 2) & (output.smpl_transl[..., 2] < 4.5)).all()
    up = output.smpl_rotmat[0, :, 0, :, 1]
    assert (up[:, 1] < -0.8).all(), "the body's up is the camera's -y"
    torch.testing.assert_close(output.smpl_rotmat[0, :, 1:], torch.eye(3).expand(2, 52, 3, 3), rtol=0, atol=0.1)


def test_twice_the_focal_length_is_twice_the_depth_along_the_same_pixels():
    image = images(1, *SIZE)
    network = with_people(make(NANO), image, 2)
    long = K * torch.tensor([[2.0, 2.0, 1.0], [2.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    long[:2, 2] = K[:2, 2]
    near, _ = network.step(image, None, camera_K=K)
    far, _ = network.step(image, None, camera_K=long)
    z_near, z_far = near.pts3d_in_self_view[..., 2], far.pts3d_in_self_view[..., 2]
    torch.testing.assert_close(z_far, 2 * z_near, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(far.pts3d_in_self_view[..., :2], near.pts3d_in_self_view[..., :2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(far.window.width_px, near.window.width_px, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(far.smpl_transl[..., 2], 2 * near.smpl_transl[..., 2], rtol=1e-4, atol=1e-5)


def test_points_project_onto_their_own_pixels_and_heads_onto_the_refined_location():
    image = images(1, *SIZE)
    output, _ = with_people(make(NANO), image, 2).step(image, None, camera_K=K)
    camera = PinholeCamera(96, 64, 90.0, 90.0, 47.0, 32.0)
    uv = camera.project(output.pts3d_in_self_view[0].numpy())
    v, u = np.mgrid[0:64, 0:96]
    np.testing.assert_allclose(uv, np.stack([u, v], -1), atol=1e-3)
    np.testing.assert_allclose(camera.project(output.smpl_transl[0].numpy()),
                               output.window.refined_uv_px[0].numpy(), atol=1e-3)


def test_without_intrinsics_the_canonical_camera_is_assumed():
    image, network = images(1, *SIZE), make(NANO)
    f = 0.9 * 96
    given = torch.tensor([[f, 0, 47.5], [0, f, 31.5], [0, 0, 1]])
    assumed, _ = network.step(image, None)
    stated, _ = network.step(image, None, camera_K=given)
    torch.testing.assert_close(assumed.pts3d_in_self_view, stated.pts3d_in_self_view)
    with pytest.raises(ShapeError, match=r"camera_K has shape \(2, 2\)"):
        network.step(image, None, camera_K=torch.eye(2))


def test_the_turn_to_a_ray_is_the_smallest_rotation():
    rays = torch.tensor([[0.0, 0.0, 1.0], [0.3, -0.4, 1.0], [-2.0, 1.0, 1.0]])
    turn = turn_to_ray(rays)
    torch.testing.assert_close(turn[0], torch.eye(3))
    torch.testing.assert_close(turn @ turn.transpose(1, 2), torch.eye(3).expand(3, 3, 3), rtol=0, atol=1e-6)
    torch.testing.assert_close(turn[:, :, 2], torch.nn.functional.normalize(rays, dim=-1))
    angle = torch.arccos(((turn.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1))
    torch.testing.assert_close(angle, torch.arccos(turn[:, 2, 2].clamp(-1, 1)), rtol=1e-3, atol=1e-3)


def test_degenerate_6d_rotations_stay_finite():
    rotmat = rotations_from_6d(torch.zeros(2, 6))
    assert torch.isfinite(rotmat).all()


def test_windows_are_centred_on_the_head_and_black_outside():
    channels = torch.zeros(1, 1, 100, 120)
    channels[0, 0, 40, 60] = 1.0
    window = cut_windows(channels, torch.tensor([[60.0, 40.0]]), torch.tensor([64.0]), torch.tensor([96.0]), (64, 96))
    row, column = divmod(int(window[0, 0].argmax()), 64)
    assert abs(row + 0.5 - 0.18 * 96) <= 1
    assert abs(column + 0.5 - 32) <= 1
    ones = cut_windows(torch.ones(1, 1, 100, 120), torch.tensor([[0.0, 50.0]]), torch.tensor([64.0]),
                       torch.tensor([96.0]), (64, 96))
    assert (ones[0, 0, :, :30] == 0).all(), "left of the image"
    assert (ones[0, 0, :60, 34:] == 1).all()
    assert (ones[0, 0, 70:] == 0).all(), "below the image"


def test_windows_grow_with_nearness_and_stay_within_limits():
    network, image = make(NANO), images(1, *SIZE)
    scene = network.encode(image)
    human, grid = network.human_tokens(image, scene)
    cells = torch.tensor([[[2, 3], [4, 5], [1, 1], [6, 9]]])
    loc = network.head_locations(take_cells(human, cells, grid), cells)
    prompts = network.prompts(take_cells(human, cells, grid),
                              take_cells(scene.tokens, network.scene_patches(loc, SIZE), scene.grid))
    taps = network.decode(scene, prompts, network.scene_patches(loc, SIZE), network.initial_state())
    depth = torch.tensor([[2.0, 4.0, 1e-3, 1e3]])
    mask = torch.zeros(1, *SIZE)
    bodies = network.bodies(taps, take_cells(human, cells, grid), images=image, mask=mask, loc=loc, camera_K=K,
                            depth_m=depth)
    np.testing.assert_allclose(bodies.window.width_px[0].numpy(),
                               [1.4 * 90 / 2, 1.4 * 90 / 4, 4 * 64 * 2 / 3, 16], rtol=1e-5)
    with pytest.raises(ShapeError, match="need images, mask and loc"):
        network.bodies(taps, take_cells(human, cells, grid))


def test_padding_people_change_nothing_and_batches_equal_single_images():
    network, batch = make(NANO), images(2, *SIZE)
    scene = network.encode(batch)
    human, grid = network.human_tokens(batch, scene)
    cells = torch.tensor([[[2, 3], [4, 5], [7, 11]], [[1, 1], [0, 0], [6, 9]]])
    valid = torch.tensor([[True, True, False], [True, False, False]])
    at = take_cells(human, cells, grid)
    loc = network.head_locations(at, cells)
    patches = network.scene_patches(loc, SIZE)
    prompts = network.prompts(at, take_cells(scene.tokens, patches, scene.grid))
    taps = network.decode(scene, prompts, patches, network.initial_state(2), valid=valid)
    mask = network.mask_logits(human, grid).sigmoid()
    bodies = network.bodies(taps, at, images=batch, mask=mask, loc=loc, camera_K=K, valid=valid)
    dense = network.dense(scene, taps, K)
    for i, people in enumerate((2, 1)):
        image = batch[i:i + 1]
        alone = network.encode(image)
        tokens, _ = network.human_tokens(image, alone)
        there = take_cells(tokens, cells[i:i + 1, :people], grid)
        place = network.head_locations(there, cells[i:i + 1, :people])
        patch = network.scene_patches(place, SIZE)
        prompt = network.prompts(there, take_cells(alone.tokens, patch, alone.grid))
        one = network.decode(alone, prompt, patch, network.initial_state())
        body = network.bodies(one, there, images=image, mask=network.mask_logits(tokens, grid).sigmoid(),
                              loc=place, camera_K=K)
        for ours, expected in (
                (taps.new_tokens[i], one.new_tokens[0]), (dense.points[i], network.dense(alone, one, K).points[0]),
                (bodies.rotmat[i, :people], body.rotmat[0]), (bodies.transl[i, :people], body.transl[0]),
                (bodies.window.joints_uv_px[i, :people], body.window.joints_uv_px[0])):
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


def test_step_equals_its_parts():
    image = images(1, *SIZE)
    network = with_people(make(NANO), image, 2)
    output, state = network.step(image, None, camera_K=K)
    scene = network.encode(image)
    human, grid = network.human_tokens(image, scene)
    found = network.detect(human, grid)
    at = take_cells(human, found.cells, grid)
    loc = network.head_locations(at, found.cells)
    patches = network.scene_patches(loc, SIZE)
    taps = network.decode(scene, network.prompts(at, take_cells(scene.tokens, patches, scene.grid)), patches,
                          network.initial_state())
    assert found.valid.all()
    torch.testing.assert_close(network.dense(scene, taps, K).points, output.pts3d_in_self_view)
    torch.testing.assert_close(network.next_state(network.initial_state(), taps).tokens, state.tokens)


def test_detection_in_batches_pads_to_the_largest_count():
    batch = images(2, *SIZE)
    network = with_people(make(NANO), batch[:1], 3)
    human, grid = network.human_tokens(batch, network.encode(batch))
    found = network.detect(human, grid)
    counts = [int(network.detect(human[i:i + 1], grid).valid.sum()) for i in range(2)]
    assert found.valid.sum(1).tolist() == counts
    assert found.cells.shape[1] == max(counts)
    alone = network.detect(human[:1], grid).cells[0]
    np.testing.assert_array_equal(found.cells[0, :counts[0]].numpy(), alone.numpy())
    rows = alone[:, 0] * grid[1] + alone[:, 1]
    assert (rows[1:] > rows[:-1]).all(), "row by row"


def test_two_runs_are_equal_and_state_keeps_its_size():
    image = images(3, *SIZE)
    network = with_people(make(NANO), image[:1], 2)

    def run() -> tuple[list[torch.Tensor], tuple[int, ...]]:
        state, points = None, []
        for i in range(6):
            output, state = network.step(image[i % 3][None], state, camera_K=K)
            points.append(output.pts3d_in_self_view)
        return points, tuple(state.tokens.shape)

    (first, size), (second, _) = run(), run()
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert size == (1, 6, 24)
    assert not torch.equal(first[0], first[3]), "the same image later: the state has changed"


@pytest.mark.parametrize("people", ["some", "nobody", "no slots"])
def test_every_parameter_that_a_loss_can_reach_gets_a_gradient(people: str):
    torch.manual_seed(0)
    network = HumanSceneNetwork(NANO).train()
    batch = images(2, *SIZE)
    slots = 0 if people == "no slots" else 2
    cells = torch.ones(2, slots, 2, dtype=torch.long)
    valid = torch.full((2, slots), people == "some")
    scene = network.encode(batch)
    human, grid = network.human_tokens(batch, scene)
    at = take_cells(human, cells, grid)
    loc = network.head_locations(at, cells)
    patches = network.scene_patches(loc.detach(), SIZE)
    prompts = network.prompts(at, take_cells(scene.tokens, patches, scene.grid))
    state = network.initial_state(2)
    taps = network.decode(scene, prompts, patches, state, valid=valid)
    taps = network.decode(scene, prompts, patches, network.next_state(state, taps), valid=valid)
    mask = network.mask_logits(human, grid)
    dense = network.dense(scene, taps, K)
    bodies = network.bodies(taps, at, images=batch, mask=mask.sigmoid(), loc=loc, camera_K=K, valid=valid)
    window = bodies.window
    loss = (dense.points.sum() + dense.confidence.sum() + mask.sum() + network.detect(human, grid).logits.sum()
            + loc.sum() + bodies.rotmat.sum() + bodies.shape.sum() + bodies.transl.sum() + window.head_depth_m.sum()
            + window.joints_uv_px.sum())
    loss.backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    if people == "no slots":
        assert all(name.startswith("downstream_head.") for name in without)
    else:
        # The proposed state of the last frame has no successor to reach a loss through.
        last = f"dec_blocks_state.{NANO.dec_depth - 1}."
        assert without <= {n for n in without if n.startswith((last, "dec_norm_state"))}
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_dimensions_are_free():
    changed = dataclasses.replace(NANO, stem_dims=(4, 8, 12), dec_depth=1, state_size=9, window_size=(32, 48))
    image = images(1, 48, 80)
    network = with_people(make(changed), image, 1)
    output, _ = network.step(image, None)
    assert output.pts3d_in_self_view.shape == (1, 48, 80, 3)
    assert output.smpl_transl.shape == (1, 1, 3)


def test_places_of_a_window_are_the_offsets_at_which_it_was_cut():
    """A ramp cut out of the image tells where each cell lies, in window widths from the head."""
    u = torch.arange(120.0).expand(100, 120)
    v = torch.arange(100.0)[:, None].expand(100, 120)
    uv, width = torch.tensor([[60.0, 30.0]]), 24.0
    window = cut_windows(torch.stack([u, v])[None], uv, torch.tensor([width]), torch.tensor([width * 1.5]), (16, 24))
    seen = (window[0].flatten(1).T - uv) / width
    torch.testing.assert_close(seen, window_places((16, 24), u), rtol=1e-4, atol=1e-4)
