"""Mixed precision, several processes, validation, signs of collapse and prompt tuning, each for a step at tiny size."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from human_scene_ros.body.model import load_body_model
from human_scene_ros.body.torch_model import TorchBody
from human_scene_ros.errors import ConfigError
from human_scene_ros.model.checkpoint import load_network, save_checkpoint
from human_scene_ros.model.formulas import from_square_px, to_square_px
from human_scene_ros.synthetic.dataset import list_shards, open_shard, write_shards
from human_scene_ros.synthetic.world import WorldConfig
from human_scene_ros.training import train as training
from human_scene_ros.training.config import PRESETS
from human_scene_ros.training.data import load_clips
from human_scene_ros.training.prompt import TUNED, freeze_all_but_prompts
from human_scene_ros.training.teacher import clip_losses
from human_scene_ros.training.validation import collapsed, validate

sys.path[:0] = [str(Path(__file__).parents[1] / "model")]
from tiny_network import NANO, OFFICIAL, make  # noqa: E402 - lies in test/model


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("product_shards")
    write_shards(folder, seed=5, clips=4, frames_per_clip=2,
                 config=WorldConfig(width=96, height=64, empty_fraction=0.0))
    return folder


@pytest.fixture(scope="module")
def body():
    return TorchBody(load_body_model())


def clips_of(shards, first, count):
    return load_clips(open_shard(list_shards(shards)[0]), np.arange(first, first + count), np.arange(2))


def loss_of(network, body, batch, config):
    torch.manual_seed(0)
    terms = clip_losses(network, body, batch, config, np.random.default_rng(0), 0)
    return torch.stack([getattr(config.weights, name) * value for name, value in terms.items()]).sum()


def test_mixed_precision_computes_nearly_the_same_loss_and_finite_gradients(shards, body):
    batch, config = clips_of(shards, 0, 2), PRESETS["smoke"]
    losses = []
    for mixed in (False, True):
        network = make(NANO).requires_grad_(True).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = loss_of(network, body, batch, config)
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
        losses.append(float(loss.detach()))
    assert losses[0] != losses[1], "autocast changed nothing: it is not on"
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


WORKER = """
import sys
sys.path[:0] = sys.argv[1:3]
import torch, torch.distributed
from test_training_product import TorchBody, clips_of, load_body_model, loss_of, make, NANO, PRESETS, Path
from human_scene_ros.training.train import average_over_processes
torch.distributed.init_process_group("gloo")
torch.set_num_threads(1)
rank = torch.distributed.get_rank()
network = make(NANO).requires_grad_(True).train()
loss_of(network, TorchBody(load_body_model()), clips_of(Path(sys.argv[3]), 2 * rank, 2), PRESETS["smoke"]).backward()
seconds = average_over_processes(network, 10.0 + 4.0 * rank, 2)
torch.save({"seconds": seconds, "gradients": {n: p.grad for n, p in network.named_parameters() if p.grad is not None},
            "buffers": dict(network.named_buffers())}, f"{sys.argv[4]}/{rank}.pt")
"""


def test_two_processes_hold_the_gradient_and_statistics_of_both(shards, body, tmp_path):
    """torchrun with gloo. Batch statistics and means are each process's own, so the step is the mean of two halves."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
                    str(Path(__file__).parent), str(Path(__file__).parents[1]), str(shards), str(tmp_path)],
                   check=True, timeout=300, env=environment)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["seconds"] == second["seconds"] == 12.0
    halves = []
    for k in (0, 2):
        network = make(NANO).requires_grad_(True).train()
        loss_of(network, body, clips_of(shards, k, 2), PRESETS["smoke"]).backward()
        halves.append(network)
    for name, gradient in first["gradients"].items():
        torch.testing.assert_close(gradient, second["gradients"][name], rtol=0, atol=0)
        mean = sum(dict(n.named_parameters())[name].grad for n in halves) / 2
        torch.testing.assert_close(gradient, mean, rtol=1e-3, atol=1e-5)
    for name, value in first["buffers"].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, second["buffers"][name], rtol=0, atol=0)
            mean = sum(dict(n.named_buffers())[name] for n in halves) / 2
            torch.testing.assert_close(value, mean, rtol=1e-4, atol=1e-6)


def test_validation_is_repeatable_and_leaves_the_run_as_it_was(shards, body):
    network, config = make(NANO).train(), PRESETS["smoke"]
    unseen = [clips_of(shards, 0, 2), clips_of(shards, 2, 2)]
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = validate(network, body, unseen, config, "cpu")
    assert torch.equal(torch.rand(1), expected) and network.training
    assert first == validate(network, body, unseen, config, "cpu")
    assert first["loss"] > 0 and isinstance(first["warnings"], list)


def test_a_run_logs_its_validation(shards, tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(training.NETWORK_PRESETS, "tiny_nano", dataclasses.replace(NANO, name="tiny_nano"))
    config = dataclasses.replace(PRESETS["smoke"], preset="tiny_nano", minutes=0.05, validate_every_s=0.01,
                                 validation_clips=2)
    with caplog.at_level(logging.WARNING):
        training.train(shards, tmp_path, config)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    validations = [line["validation"] for line in lines if "validation" in line]
    assert validations and {"loss", "depth", "detection", "warnings"} <= set(validations[0])
    # An untrained network says the same depth everywhere; whoever watches the run is told so.
    assert any("depth is one value per image" in w for w in validations[0]["warnings"])
    assert "depth is one value per image" in caplog.text


def test_collapsed_heads_are_told_from_healthy_ones():
    healthy = {"heads": 1.4, "true_heads": 1.5, "mask": 0.1, "true_mask": 0.12, "depth": 0.4, "true_depth": 0.5,
               "joints": 0.1, "true_joints": 0.12}
    assert collapsed(healthy) == []
    for changes, text in (({"heads": 0.0}, "fires nowhere"), ({"heads": 30.0}, "fires everywhere"),
                          ({"mask": 0.0}, "covers 0.0 %"), ({"depth": 0.01}, "one value per image"),
                          ({"joints": 0.001}, "stand still")):
        told = collapsed(healthy | changes)
        assert len(told) == 1 and text in told[0]
    assert collapsed(healthy | {"heads": 0.0, "true_heads": 0.0, "mask": 0.0, "true_mask": 0.0}) == []


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_square_pixels_there_and_back(size):
    uv = torch.tensor([[[3.0, 5.0], [40.0, 61.0]]])
    torch.testing.assert_close(from_square_px(to_square_px(uv, 112, size), 112, size), uv, atol=1e-4, rtol=0)


def test_prompt_tuning_changes_prompts_and_body_heads_only(shards, tmp_path, monkeypatch):
    config = dataclasses.replace(OFFICIAL, name="tiny_official", unused_keys=False)
    monkeypatch.setitem(training.NETWORK_PRESETS, "tiny_official", config)
    start = save_checkpoint(tmp_path / "official.safetensors", make(config), {"note": "tiny"})
    run = dataclasses.replace(PRESETS["prompt-672s"], preset="tiny_official", minutes=0.03, ema=0.0, clip_frames=2,
                              min_person_px=8.0, warmup_steps=1, validate_every_s=0.0)
    with pytest.raises(ConfigError, match="--scene"):
        training.train(shards, tmp_path / "run", run)
    progress = training.train(shards, tmp_path / "run", run, scene=start)
    assert progress.step >= 1
    before = load_network(start)[0].state_dict()
    stored = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["learners"]
    after = {name.removeprefix("network."): value for name, value in stored.items()}
    tuned = tuple(f"downstream_head.{part}." for part in TUNED)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith(tuned) for name in changed)
    assert {part for part in TUNED if any(f".{part}." in name for name in changed)} >= {
        "mlp_fuse", "decpose", "decshape", "deccam", "mlp_msk"}
    with pytest.raises(ConfigError, match="token body head"):
        freeze_all_but_prompts(make(NANO))
