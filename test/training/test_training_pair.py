"""The pair head: exact geometry, nothing lost at the truth, gradients where they belong, and a loss that falls."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ConfigError
from human_scene_ros.model.checkpoint import load_network
from human_scene_ros.model.network import HumanSceneNetwork
from human_scene_ros.model.pair_pose import (
    CHANNELS,
    PATCH_PX,
    REACH_PX,
    PairMotion,
    PairPose,
    at_cells,
    cell_centres,
    compare,
    cosine_patterns,
    rotation_matrix,
    solve_motion,
    window_px,
)
from human_scene_ros.model.presets import PRESETS as NETWORK_PRESETS
from human_scene_ros.synthetic.dataset import list_shards, open_shard, write_shards
from human_scene_ros.synthetic.world import WorldConfig
from human_scene_ros.training import train as training
from human_scene_ros.training.config import PRESETS, TrainConfig
from human_scene_ros.training.data import load_clips, mirrored
from human_scene_ros.training.pair import choose_pairs, motion_errors, pair_losses, relative_poses, true_flow


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair_shards")
    write_shards(folder, seed=5, clips=4, frames_per_clip=3, config=WorldConfig(width=96, height=64))
    return folder


@pytest.fixture(scope="module")
def batch(shards):
    return load_clips(open_shard(list_shards(shards)[0]), np.arange(4), np.arange(3))


def random_motion(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return tuple(torch.from_numpy(rng.normal(0, size, (2, 3))).float() for size in (0.04, 0.05))


def test_rotations_are_those_of_scipy_and_smooth_at_zero():
    vectors = torch.cat([torch.zeros(1, 3), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))]).double()
    vectors.requires_grad_()
    matrices = rotation_matrix(vectors)
    np.testing.assert_allclose(matrices.detach().numpy(), Rotation.from_rotvec(vectors.detach().numpy()).as_matrix(),
                               atol=1e-9)
    matrices.sum().backward()
    assert torch.isfinite(vectors.grad).all()


@pytest.mark.parametrize("depth_noise", [1e-3, 0.2])
def test_true_matches_and_depth_give_the_true_motion(depth_noise):
    turn, step = random_motion(0)
    rng = np.random.default_rng(1)
    rays = torch.from_numpy(rng.uniform(-0.5, 0.5, (2, 60, 2))).float()
    z = torch.from_numpy(rng.uniform(0.5, 2.0, (2, 60))).float()
    there = torch.cat([rays, torch.ones(2, 60, 1)], -1) * z[..., None] @ rotation_matrix(turn).transpose(1, 2) + step[
        :, None]
    rotation, translation, information = solve_motion(
        rays, z, there[..., :2] / there[..., 2:], torch.full((2, 60, 2), 1e-3), torch.ones(2, 60),
        torch.full((2, 60), depth_noise), torch.full((2, 2), 10.0))
    torch.testing.assert_close(rotation, rotation_matrix(turn), atol=2e-4, rtol=0)
    torch.testing.assert_close(translation, step, atol=5e-4, rtol=0)
    assert (torch.linalg.eigvalsh(information) > 0).all()


def test_without_matches_the_prior_says_no_motion():
    rotation, translation, _ = solve_motion(torch.rand(1, 9, 2), torch.ones(1, 9), torch.rand(1, 9, 2),
                                            torch.ones(1, 9, 2), torch.zeros(1, 9), torch.full((1, 9), 0.2),
                                            torch.full((1, 2), 0.1))
    torch.testing.assert_close(rotation, torch.eye(3)[None])
    torch.testing.assert_close(translation, torch.zeros(1, 3))


def test_patterns_are_orthonormal_and_blind_to_brightness():
    patterns = cosine_patterns().flatten(1)
    assert patterns.shape == (CHANNELS, PATCH_PX**2)
    torch.testing.assert_close(patterns @ patterns.T, torch.eye(CHANNELS), atol=1e-5, rtol=0)
    torch.testing.assert_close(patterns.sum(dim=1), torch.zeros(CHANNELS), atol=1e-5, rtol=0)


def test_a_shifted_picture_is_found_where_it_went():
    """Untrained descriptors already: content that moves by (6, -4) px is most alike there."""
    torch.manual_seed(0)
    noise = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 100, 140), 5, stride=1)
    first, second = noise[..., 8:72, 8:104], noise[..., 12:76, 2:98]
    head = PairPose().eval()
    with torch.no_grad():
        alike = compare(head.describe(first), head.describe(second))
    inner = ((cell_centres((64, 96), first) > 20) & (cell_centres((64, 96), first) < torch.tensor([76.0, 44.0]))).all(1)
    best = window_px(alike)[alike[0].argmax(dim=0)][inner]
    assert len(best) >= 12
    torch.testing.assert_close(best, torch.tensor([6.0, -4.0]).expand_as(best))


@pytest.mark.parametrize("change", [lambda clips: clips, mirrored], ids=["as is", "mirrored"])
def test_true_flow_finds_the_same_place_in_the_other_image(batch, change):
    """Pixels at both ends of the true displacement are alike; the mirrored truth belongs to mirrored images."""
    clips = change(batch)
    first, second = choose_pairs(4, 3, 1, np.random.default_rng(0))
    images, depth = clips.images.flatten(0, 1), clips.depth_m.flatten(0, 1)
    camera_K = clips.camera_K[:, None].expand(-1, 3, -1, -1).flatten(0, 1)[first]
    T = relative_poses(clips.T_world_camera.flatten(0, 1), first, second)
    flow, known = true_flow(depth[first], depth[second], camera_K, T)
    known = known & ~at_cells(clips.person.flatten(0, 1))[first]
    assert known.float().mean() > 0.5
    assert flow[known].abs().max() < REACH_PX
    uv = cell_centres((64, 96), images)

    def at(index, places):
        grid = (places + 0.5) / torch.tensor([96.0, 64.0]) * 2 - 1
        return torch.nn.functional.grid_sample(images[index], grid[:, None], align_corners=False)[:, :, 0]

    def difference(places):
        return float((at(first, uv.expand_as(flow)) - at(second, places)).abs().mean(1)[known].mean())

    assert difference(uv + flow) < 0.7 * difference(uv.expand_as(flow))


def test_the_truth_has_no_error_and_gradients():
    turn, step = random_motion(3)
    T = torch.eye(4).repeat(2, 1, 1)
    T[:, :3, :3], T[:, :3, 3] = rotation_matrix(turn), 3.0 * step
    motion = PairMotion(rotation_matrix(turn).requires_grad_(), step.clone().requires_grad_(), torch.full((2,), 3.0),
                        torch.ones(2, 2), torch.zeros(2, 1, 2), torch.ones(2, 1))
    angle, away = motion_errors(motion, T)
    torch.testing.assert_close(angle, torch.zeros(2), atol=2e-6, rtol=0)
    torch.testing.assert_close(away, torch.zeros(2), atol=2e-6, rtol=0)
    (angle.sum() + away.sum()).backward()
    assert torch.isfinite(motion.rotation.grad).all()
    turned = motion._replace(rotation=rotation_matrix(turn + torch.tensor([0.01, 0.0, 0.0])))
    assert float(motion_errors(turned, T)[0].max()) == pytest.approx(0.01, rel=0.02)


def test_pairs_are_of_one_clip_near_and_in_both_orders():
    first, second = choose_pairs(3, 4, 2, np.random.default_rng(0))
    assert len(first) == 3 * 6
    assert torch.equal(first // 4, second // 4)
    assert set((first - second).tolist()) <= {-2, -1, 1, 2}


def test_steps_on_one_batch_lower_every_loss_of_the_pose(batch):
    torch.manual_seed(0)
    head = PairPose()
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3)
    depth, person = batch.depth_m.flatten(0, 1).clamp_min(0.1), batch.person.flatten(0, 1).float()
    seen = []
    for _ in range(12):
        terms = pair_losses(head, batch, depth, person, 1, np.random.default_rng(0))
        optimizer.zero_grad()
        torch.stack([getattr(PRESETS["nano-pose"].weights, name) * value for name, value in terms.items()]).sum(
            ).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
        optimizer.step()
        seen.append({name: float(value.detach()) for name, value in terms.items()})
    assert seen[-1]["pair_flow"] < seen[0]["pair_flow"]
    assert seen[-1]["pair_rotation"] < seen[0]["pair_rotation"]


def test_the_pose_stage_adds_a_head_and_leaves_the_rest(shards, tmp_path):
    config = dataclasses.replace(PRESETS["nano-pose"], minutes=0.02, batch_clips=2, clip_frames=3, predicted_masks=0.5,
                                 validate_every_s=0.0)
    training.train(shards, tmp_path, config, scene="nano")
    network, _ = load_network(tmp_path / "ema.safetensors")
    assert network.config.pair_pose
    before = load_network("nano")[0].state_dict()
    after = network.state_dict()
    assert {name for name in after if name not in before} == {name for name in after if name.startswith("pair_pose.")}
    assert all(torch.equal(after[name], value) for name, value in before.items() if not name.startswith("pair_pose."))
    # The other stages begin with such weights too, without the head; the pose stage goes on with it.
    plain, again = HumanSceneNetwork(NETWORK_PRESETS["nano"]), HumanSceneNetwork(network.config)
    for begun in (plain, again):
        training.start_from(begun, tmp_path / "ema.safetensors", None)
        assert all(torch.equal(value, after[name]) for name, value in begun.state_dict().items())


def test_the_pose_stage_says_what_it_needs(shards, tmp_path):
    with pytest.raises(ConfigError, match=r"--scene nano"):
        training.train(shards, tmp_path, PRESETS["nano-pose"])
    with pytest.raises(ConfigError, match="clip_frames = 1: the pose stage needs pairs"):
        TrainConfig(stage="pose", clip_frames=1, precision="float32")
    with pytest.raises(ConfigError, match="needs 'float32'"):
        TrainConfig(stage="pose", clip_frames=2)
