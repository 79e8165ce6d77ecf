"""Batches keep truth and pixels together; a run learns, saves, resumes and refuses what does not fit."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from human_scene_ros.body.model import load_body_model
from human_scene_ros.body.skeleton import HEAD
from human_scene_ros.body.torch_model import TorchBody, axis_angle_to_matrix
from human_scene_ros.errors import CheckpointError, SourceError
from human_scene_ros.model.checkpoint import load_network
from human_scene_ros.model.network import HumanSceneNetwork
from human_scene_ros.model.presets import PRESETS as NETWORK_PRESETS
from human_scene_ros.synthetic.dataset import list_shards, open_shard, write_shards
from human_scene_ros.synthetic.world import WorldConfig
from human_scene_ros.training import train as training
from human_scene_ros.training.config import PRESETS
from human_scene_ros.training.data import Batch, batches, load_clips, mirrored, zoomed
from human_scene_ros.training.teacher import clip_losses, triangular_wave


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, seed=5, clips=4, frames_per_clip=3,
                 config=WorldConfig(width=96, height=64, empty_fraction=0.0))
    return folder


@pytest.fixture(scope="module")
def batch(shards) -> Batch:
    return load_clips(open_shard(list_shards(shards)[0]), np.arange(4), np.arange(3))


def projected_heads(batch: Batch) -> torch.Tensor:
    heads = batch.joints_camera[..., HEAD, :]
    homogeneous = torch.einsum("bij,btpj->btpi", batch.camera_K, heads)
    return homogeneous[..., :2] / homogeneous[..., 2:]


def seen(batch: Batch) -> torch.Tensor:
    visible = batch.present & batch.head_visible
    assert visible.any()
    return visible


@pytest.mark.parametrize("change", [lambda b: b, mirrored, lambda b: zoomed(b, 1.3, 7.5, 3.25),
                                    lambda b: zoomed(mirrored(b), 1.2, 0.0, 9.0)])
def test_heads_project_where_the_batch_says(batch, change):
    changed = change(batch)
    visible = seen(changed)
    torch.testing.assert_close(projected_heads(changed)[visible], changed.head_uv_px[visible], atol=0.02, rtol=0)


def test_mirror_twice_is_the_same_batch(batch):
    twice = mirrored(mirrored(batch))
    for field in dataclasses.fields(Batch):
        torch.testing.assert_close(getattr(twice, field.name), getattr(batch, field.name))


def test_mirrored_pose_makes_the_mirrored_joints(batch):
    """Kinematics of the mirrored pose lie on the mirrored joints; 8 mm is how symmetric the open body is."""
    changed = mirrored(batch)
    body = TorchBody(load_body_model())
    joints = body.joints(axis_angle_to_matrix(changed.pose), changed.betas)
    difference = (joints - joints[..., :1, :]) - (changed.joints_camera - changed.joints_camera[..., :1, :])
    assert difference[changed.present].norm(dim=-1).max() < 0.008


def test_people_stand_on_person_pixels_and_zoom_moves_both(batch):
    for changed in (batch, zoomed(batch, 1.4, 10.0, 5.0)):
        b, t, p = torch.nonzero(seen(changed), as_tuple=True)
        uv = changed.head_uv_px[b, t, p].round().long()
        hits = [bool(changed.person[i, j, max(v - 1, 0):v + 2, max(u - 1, 0):u + 2].any())
                for i, j, (u, v) in zip(b, t, uv.tolist(), strict=True)]
        assert np.mean(hits) > 0.9


def test_batches_need_shards(tmp_path):
    with pytest.raises(SourceError, match="human-scene synthesize"):
        next(batches(tmp_path, 2, 2, np.random.default_rng(0)))


def test_clip_is_watched_forwards_and_backwards():
    assert [triangular_wave(k, 3) for k in range(7)] == [0, 1, 2, 1, 0, 1, 2]
    assert triangular_wave(5, 1) == 0


@pytest.mark.parametrize("burn_in", [0, 3])
def test_every_parameter_that_should_learn_gets_a_finite_gradient(batch, burn_in):
    torch.manual_seed(0)
    network = HumanSceneNetwork(NETWORK_PRESETS["nano"])
    terms = clip_losses(network, TorchBody(load_body_model()), batch, PRESETS["nano"], np.random.default_rng(0),
                        burn_in)
    torch.stack(list(terms.values())).sum().backward()
    silent = {name for name, p in network.named_parameters() if p.grad is None}
    # A burnt-in state comes without gradients; then the learned initial state has none either.
    state = {"register_tokens.weight", "decoder_embed_state.weight", "decoder_embed_state.bias"}
    assert silent == (state if burn_in else set())
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("preset", ["nano-scene", "nano-scene-2", "nano-bodies", "nano-bodies-2"])
def test_a_stage_trains_its_part_only(batch, preset):
    network = HumanSceneNetwork(NETWORK_PRESETS["nano"])
    config = PRESETS[preset]
    network.downstream_head.window.forget_tokens()
    terms = clip_losses(network, TorchBody(load_body_model()), batch, config, np.random.default_rng(0), 0)
    torch.stack(list(terms.values())).sum().backward()
    learning = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    window = {name for name, _ in network.named_parameters() if name.startswith("downstream_head.window.")}
    if config.stage == "bodies":
        assert learning == window
    else:
        assert not learning & window
        assert len(learning) > 100


def test_a_head_that_forgot_tokens_does_not_change_with_them():
    window = HumanSceneNetwork(NETWORK_PRESETS["nano"]).downstream_head.window.eval()
    torch.nn.init.normal_(window.out.weight)
    pictures = torch.rand(2, 4, 96, 64)
    before = window(pictures, torch.randn(2, 128))[0]["pose6d"]
    assert not torch.equal(before, window(pictures, torch.randn(2, 128))[0]["pose6d"])
    window.forget_tokens()
    torch.testing.assert_close(window(pictures, torch.randn(2, 128))[0]["pose6d"],
                               window(pictures, torch.zeros(2, 128))[0]["pose6d"])


def test_a_few_steps_on_one_batch_lower_the_loss(batch):
    torch.manual_seed(0)
    network = HumanSceneNetwork(NETWORK_PRESETS["nano"])
    body = TorchBody(load_body_model())
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4)
    totals = []
    for _ in range(12):
        loss = torch.stack(list(clip_losses(network, body, batch, PRESETS["nano"], np.random.default_rng(0), 0)
                                .values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(float(loss.detach()))
    assert totals[-1] < 0.8 * totals[0]


def test_a_run_saves_resumes_and_ships(shards, tmp_path):
    config = dataclasses.replace(PRESETS["smoke"], minutes=0.03)
    first = training.train(shards, tmp_path, config)
    assert first.step >= 1
    longer = dataclasses.replace(config, minutes=config.minutes + first.seconds / 60)
    second = training.train(shards, tmp_path, longer)
    assert second.step > first.step
    assert second.frames == second.step * config.batch_clips * config.clip_frames
    network, info = load_network(tmp_path / "ema.safetensors")
    assert info.card["progress"]["step"] == second.step
    assert "synthetic" in info.note
    stored = torch.load(tmp_path / "last.pt", weights_only=True)
    torch.testing.assert_close(network.state_dict()["pose_token"], stored["ema"]["pose_token"], atol=1e-3, rtol=1e-3)


def test_a_run_of_other_dimensions_is_refused(shards, tmp_path, monkeypatch):
    config = dataclasses.replace(PRESETS["smoke"], minutes=0.005)
    training.train(shards, tmp_path, config)
    small = dataclasses.replace(NETWORK_PRESETS["nano"], enc_depth=2)
    monkeypatch.setitem(training.NETWORK_PRESETS, "nano", small)
    with pytest.raises(CheckpointError, match="start a new run in another folder"):
        training.train(shards, tmp_path, config)


def test_the_log_is_one_json_object_per_line(tmp_path):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    recent = {"loss": [1.0, 3.0]}
    training.report(tmp_path / "log.jsonl", training.Progress(step=7, seconds=60.0, frames=42), optimizer, recent)
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line == {"step": 7, "minutes": 1.0, "frames": 42, "lr": 0.5, "loss": 2.0}
    assert recent == {}
