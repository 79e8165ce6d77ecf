"""Weights on disk: what goes in comes out, and everything else is refused with a reason."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_network import NANO, OFFICIAL, images, make

from human_scene_ros.errors import CheckpointError
from human_scene_ros.model.checkpoint import (
    describe_weights,
    find_weights,
    load_network,
    load_strictly,
    save_checkpoint,
)
from human_scene_ros.model.network import HumanSceneNetwork

from helpers import REPOSITORY


@pytest.mark.parametrize("config", [NANO, OFFICIAL], ids=lambda c: c.name)
def test_a_saved_network_computes_the_same_after_loading(tmp_path: Path, config):
    network = make(config)
    file = save_checkpoint(tmp_path / "weights.safetensors", network, {"note": "for a test", "steps": 3})
    loaded, info = load_network(file)
    image = images(1, 64, 96)
    for a, b in zip(network.step(image, None), loaded.step(image, None), strict=True):
        a, b = (getattr(x, "pts3d_in_self_view", getattr(x, "tokens", None)) for x in (a, b))
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert info.note == "for a test"
    assert info.card["steps"] == 3
    assert info.name == config.name
    assert re.fullmatch("[0-9a-f]{64}", info.sha256)
    assert loaded.config == config
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_folder_also_gets_a_readable_description(tmp_path: Path):
    save_checkpoint(tmp_path / "out", make(OFFICIAL), {"note": "n"})
    described = json.loads((tmp_path / "out" / "model.json").read_text())
    assert described["config"]["backbone"]["embed_dim"] == 20
    assert load_network(tmp_path / "out")[1].note == "n"


def test_half_precision_halves_the_file_and_loads_as_float32(tmp_path: Path):
    network = make(NANO)
    full = save_checkpoint(tmp_path / "a.safetensors", network, {})
    half = save_checkpoint(tmp_path / "b.safetensors", network, {}, torch.float16)
    assert half.stat().st_size < 0.7 * full.stat().st_size
    loaded, _ = load_network(half)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    error = [float((a - b).abs().max()) for a, b in zip(network.parameters(), loaded.parameters(), strict=True)]
    assert 0 < max(error) < 5e-3


def test_tensors_with_two_names_are_stored_once_and_stay_one(tmp_path: Path):
    network = make(OFFICIAL)
    file = save_checkpoint(tmp_path / "a.safetensors", network, {})
    stored = load_file(file)
    assert not [name for name in stored if "layer_rn" in name]
    loaded, _ = load_network(file)
    scratch = loaded.downstream_head.dpt_self.scratch
    assert scratch.layer_rn[2].weight is scratch.layer3_rn.weight
    assert set(loaded.state_dict()) == set(network.state_dict())


def test_saving_leaves_no_partial_file(tmp_path: Path):
    save_checkpoint(tmp_path / "a.safetensors", make(NANO), {})
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_missing_file_is_answered_with_the_way_to_get_it(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"human3r_672s does not exist; .*hf download faneggg/human3r "
                                              r"human3r_672S.pth .* human-scene convert checkpoint human3r_672S.pth"):
        load_network(tmp_path / "human3r_672s")
    with pytest.raises(CheckpointError, match="no weights of preset 'human3r_896l' ship with this installation"):
        load_network("human3r_896l")


def test_a_truncated_file_is_named_with_its_size(tmp_path: Path):
    file = save_checkpoint(tmp_path / "a.safetensors", make(NANO), {})
    data = file.read_bytes()
    for length in (0, 7, 100, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match=rf"a.safetensors \({length} bytes\) is truncated"):
            load_network(file)


def test_another_preset_is_refused_with_both_names(tmp_path: Path):
    file = save_checkpoint(tmp_path / "a.safetensors", make(NANO), {})
    with pytest.raises(CheckpointError, match="holds network 'tiny_nano', but preset 'nano' was asked for; set the "
                                              "preset to 'tiny_nano'"):
        load_network(file, expect_preset="nano")
    with pytest.raises(CheckpointError, match="preset 'mano' does not exist; expected one of .*'nano'"):
        load_network(file, expect_preset="mano")


def test_pickles_are_sent_to_the_converter(tmp_path: Path):
    (tmp_path / "human3r.pth").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match="is a pickle.*human-scene convert checkpoint"):
        find_weights(tmp_path / "human3r.pth")


def test_foreign_safetensors_and_edited_configurations_are_refused(tmp_path: Path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="has format None in its metadata, expected 'human_scene_ros.network.1'"):
        load_network(foreign)
    file = save_checkpoint(tmp_path / "a.safetensors", make(NANO), {})
    config = json.dumps({"enc_embed_dims": 3})
    save_file(load_file(file), file, {"format": "human_scene_ros.network.1", "config": config, "card": "{}"})
    with pytest.raises(CheckpointError, match=r"unknown key\(s\) \['enc_embed_dims'\]"):
        load_network(file)


def test_keys_and_shapes_must_fit_exactly():
    network = make(NANO)
    tensors = dict(network.state_dict())
    lacking = {k: v for k, v in tensors.items() if not k.startswith("enc_norm")}
    with pytest.raises(CheckpointError, match=r"file does not fit network 'tiny_nano': 2 key\(s\) missing: "
                                              r"\['enc_norm.bias', 'enc_norm.weight'\]\. Its shapes are those of nano"):
        load_strictly(network, lacking, "file")
    with pytest.raises(CheckpointError, match=r"1 key\(s\) unknown: \['more'\]"):
        load_strictly(network, tensors | {"more": torch.zeros(1)}, "file")
    with pytest.raises(CheckpointError, match=r"1 tensor\(s\) of another shape: enc_norm.bias is 3, expected 16"):
        load_strictly(network, tensors | {"enc_norm.bias": torch.zeros(3)}, "file")
    other = HumanSceneNetwork(dataclasses.replace(NANO, enc_depth=3))
    with pytest.raises(CheckpointError, match=r"24 key\(s\) missing: .* and 19 more"):
        load_strictly(other, tensors, "file")


def test_copies_of_one_tensor_must_agree_and_one_is_enough():
    network = make(OFFICIAL)
    first = "downstream_head.dpt_rgb.scratch.layer1_rn.weight"
    alias = "downstream_head.dpt_rgb.scratch.layer_rn.0.weight"
    tensors = {k: v.clone() for k, v in network.state_dict().items()}
    load_strictly(make(OFFICIAL, seed=1), {k: v for k, v in tensors.items() if k != first}, "file")
    load_strictly(make(OFFICIAL, seed=1), {k: v for k, v in tensors.items() if k != alias}, "file")
    tensors[alias][0] += 1
    with pytest.raises(CheckpointError, match="are one tensor of the network, but their values differ"):
        load_strictly(network, tensors, "file")


def test_loading_fails_before_anything_is_changed():
    network = make(NANO)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    tensors = {k: v + 1 for k, v in before.items()}
    tensors.pop("enc_norm.bias")
    with pytest.raises(CheckpointError):
        load_strictly(network, tensors, "file")
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name].numpy())


def test_loading_draws_no_random_numbers_and_needs_no_compiler():
    """The compiler of torch, once imported, would more than double the start of every node."""
    code = ("import sys, torch\nbefore = torch.get_rng_state()\n"
            "from human_scene_ros.model.checkpoint import load_network\nload_network('nano')\n"
            "assert torch.equal(before, torch.get_rng_state()), 'random numbers were drawn'\n"
            "assert not {'torch._dynamo', 'sympy'} & set(sys.modules), 'the compiler was imported'\n")
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
                            check=False)
    assert result.returncode == 0, result.stderr


def test_weights_describe_themselves_without_being_loaded(tmp_path: Path):
    file = save_checkpoint(tmp_path / "a.safetensors", make(NANO), {"note": "n"})
    assert describe_weights(file) == load_network(file)[1]
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(CheckpointError, match=r"a.safetensors \(50 bytes\) is truncated"):
        describe_weights(file)
    with pytest.raises(CheckpointError, match="does not exist"):
        describe_weights(tmp_path / "b.safetensors")
