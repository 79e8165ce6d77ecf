"""Official .pth files: read without executing, understood, converted; hostile and broken ones refused."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import fractions
import json
import math
import os
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_network import OFFICIAL, images, make

from human_scene_ros.cli import main
from human_scene_ros.commands.convert import checkpoint_to_folder
from human_scene_ros.errors import CheckpointError
from human_scene_ros.model.checkpoint import load_network, unfilled_network
from human_scene_ros.model.network import BackboneConfig
from human_scene_ros.model.official import STAND_INS, network_config, parse_arguments, read_official
from human_scene_ros.model.presets import PRESETS

# Heads of 64 channels in the human branch, as in every DINOv2.
CONFIG = dataclasses.replace(OFFICIAL, backbone=BackboneConfig(embed_dim=64, depth=2, num_heads=1, image_px=112,
                                                               table_side=6))
ARGUMENTS = (
    "ARCroco3DStereo(ARCroco3DStereoConfig(freeze='encoder_and_decoder_and_head', state_size=10, state_pe='2d', "
    "pos_embed='RoPE100', rgb_head=True, pose_head=True, msk_head=True, patch_embed_cls='ManyAR_PatchEmbed', "
    "img_size=(512, 512), head_type='dpt', output_mode='pts3d+pose+smpl', depth_mode=('exp', -inf, inf), "
    "conf_mode=('exp', 1, inf), pose_mode=('exp', -inf, inf), enc_embed_dim=24, enc_depth=2, enc_num_heads=2, "
    "dec_embed_dim=16, dec_depth=4, dec_num_heads=4, state_dec_num_heads=2, landscape_only=False, mhmr_img_res=112))")


@pytest.fixture
def configuration_classes() -> Iterator[dict[str, type]]:
    """Classes with the names of the configuration library, importable while a checkpoint is written."""
    classes: dict[str, type] = {}
    modules: dict[str, types.ModuleType] = {}
    for dotted in STAND_INS:
        module, _, name = dotted.rpartition(".")
        holder = modules.setdefault(module, types.ModuleType(module))
        classes[name] = type(name, (), {"__module__": module, "__qualname__": name})
        setattr(holder, name, classes[name])
    modules.setdefault("omegaconf", types.ModuleType("omegaconf"))
    sys.modules.update(modules)
    yield classes
    for module in modules:
        del sys.modules[module]


def configuration(classes: dict[str, type], text: str) -> Any:
    """What the trainer's resolved configuration looks like in a pickle."""
    node = classes["AnyNode"]()
    metadata = classes["Metadata"]()
    metadata.__dict__.update(ref_type=typing.Any, object_type=None, optional=True, key="model")
    node.__dict__.update(_metadata=metadata, _parent=None, _val=text)
    container = classes["ContainerMetadata"]()
    container.__dict__.update(ref_type=typing.Any, object_type=dict, element_type=typing.Any, key_type=int,
                              resolver_cache=collections.defaultdict(dict))
    sizes = classes["ListConfig"]()
    sizes.__dict__.update(_metadata=container, _content=[1, 2])
    root = classes["DictConfig"]()
    root.__dict__.update(_metadata=container, _parent=None, _content={"model": node, "sizes": sizes})
    return root


def write(path: Path, tensors: dict[str, torch.Tensor], args: Any = None, **more: Any) -> Path:
    """A checkpoint as the official trainer writes it."""
    torch.save({"model": tensors, "args": args, "epoch": 3, "optimizer": {"state": {}}, **more}, path)
    return path


def test_an_official_checkpoint_becomes_the_same_network(tmp_path: Path, configuration_classes):
    network = make(CONFIG)
    tensors = {f"module.{k}": v for k, v in network.state_dict().items()}
    source = write(tmp_path / "human3r_tiny.pth", tensors, configuration(configuration_classes, ARGUMENTS))
    report = checkpoint_to_folder(source, tmp_path / "out")
    assert report["name"] == "custom"
    assert report["dropped"] == []
    loaded, info = load_network(tmp_path / "out")
    assert loaded.config == dataclasses.replace(CONFIG, name="custom", image_width_px=512)
    assert info.card["arguments"]["mhmr_img_res"] == "112"
    assert "non-commercial" in info.card["licence"]
    assert set(loaded.state_dict()) == set(network.state_dict())
    image = images(1, 64, 96)
    ours, _ = loaded.step(image, None)
    expected, _ = network.step(image, None)
    torch.testing.assert_close(ours.pts3d_in_other_view, expected.pts3d_in_other_view, rtol=0, atol=0)


@pytest.mark.parametrize("stripped", [False, True])
def test_tensors_that_streaming_never_reads_can_go(tmp_path: Path, configuration_classes, stripped: bool):
    network = make(CONFIG)
    tensors = dict(network.state_dict())
    if stripped:
        tensors = {k: v for k, v in tensors.items() if "ray_map" not in k}
    source = write(tmp_path / "a.pth", tensors, configuration(configuration_classes, ARGUMENTS))
    report = checkpoint_to_folder(source, tmp_path / "out", drop_unused=not stripped)
    assert "masked_img_token" in report["dropped"]
    assert "downstream_head.dpt_self.scratch.layer_rn.0.weight" in report["dropped"]
    loaded, _ = load_network(tmp_path / "out")
    assert not hasattr(loaded, "masked_img_token")
    image = images(1, 64, 96)
    ours, expected = loaded.step(image, None)[0], network.step(image, None)[0]
    torch.testing.assert_close(ours.pts3d_in_other_view, expected.pts3d_in_other_view, rtol=0, atol=0)


def test_plain_dictionaries_as_arguments_are_understood_and_none_at_all_needs_a_hint(tmp_path: Path):
    tensors = dict(make(CONFIG).state_dict())
    plain = read_official(write(tmp_path / "a.pth", tensors, {"model": ARGUMENTS}))
    assert plain.arguments["depth_mode"] == ("exp", -math.inf, math.inf)
    with pytest.raises(CheckpointError, match=r"a.pth does not say the size of its human image \(672 or 896 px\)"):
        network_config(read_official(write(tmp_path / "a.pth", tensors)), "a.pth")


def test_full_size_files_are_recognised_by_shape_and_name():
    tensors = dict(unfilled_network(PRESETS["human3r_672s"]).state_dict())
    from human_scene_ros.model.official import OfficialCheckpoint

    official = OfficialCheckpoint(tensors, {"mhmr_img_res": 672, "backbone": "dinov2_vits14"})
    assert network_config(official, "x.pth") == PRESETS["human3r_672s"]
    assert network_config(OfficialCheckpoint(tensors, {}), "human3r_672S.pth") == PRESETS["human3r_672s"]
    with pytest.raises(CheckpointError, match=r"human3r_672S.pth is not preset 'human3r_896l' \(it is 'human3r_672s'\)"
                                              r"; backbone.embed_dim: file 384, preset 1024"):
        network_config(official, "human3r_672S.pth", "human3r_896l")
    with pytest.raises(CheckpointError, match="preset 'x' does not exist"):
        network_config(official, "human3r_672S.pth", "x")
    with pytest.raises(CheckpointError, match="arguments say backbone = 'dinov2_vitl14', but its backbone tensors are "
                                              "384 wide"):
        network_config(OfficialCheckpoint(tensors, {"mhmr_img_res": 672, "backbone": "dinov2_vitl14"}), "x.pth")
    with pytest.raises(CheckpointError, match="arguments say state_size = 300, its tensors 768"):
        network_config(OfficialCheckpoint(tensors, {"mhmr_img_res": 672, "state_size": 300}), "x.pth")
    with pytest.raises(CheckpointError, match="was made with state_pe = 'none'; this network has '2d'"):
        network_config(OfficialCheckpoint(tensors, {"state_pe": "none"}), "x.pth")


class Hostile:
    """Runs a command when unpickled by anything less careful."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("place", ["args", "model", "epoch"])
def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path: Path, place: str):
    marker = tmp_path / "executed"
    content = {"model": {"a": torch.zeros(1)}, "args": None, place: Hostile(f"touch {marker}")}
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"names 1 unexpected global\(s\) in its pickle: \['(posix|nt).system'\]"):
        checkpoint_to_folder(tmp_path / "bad.pth", tmp_path / "out")
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_every_unexpected_global_is_listed(tmp_path: Path):
    source = write(tmp_path / "a.pth", {"a": torch.zeros(1)}, argparse.Namespace(model=ARGUMENTS),
                   best=fractions.Fraction(1, 2))
    with pytest.raises(CheckpointError, match=r"2 unexpected global\(s\) in its pickle: "
                                              r"\['argparse.Namespace', 'fractions.Fraction'\]"):
        read_official(source)


def test_broken_files_are_named(tmp_path: Path):
    source = write(tmp_path / "a.pth", dict(make(CONFIG).state_dict()), {"model": ARGUMENTS})
    data = source.read_bytes()
    source.write_bytes(data[:len(data) // 2])
    with pytest.raises(CheckpointError, match=rf"a.pth \({len(data) // 2} bytes\) is truncated or was not written by"):
        read_official(source)
    with pytest.raises(CheckpointError, match="none.pth does not exist; expected an official checkpoint"):
        read_official(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match=r"holds no tensors under 'model' \(found list\)"):
        read_official(tmp_path / "list.pth")
    write(tmp_path / "small.pth", {"enc_norm.weight": torch.zeros(4)})
    with pytest.raises(CheckpointError, match="small.pth has no tensor 'dec_norm.weight'; it is no complete Human3R"):
        checkpoint_to_folder(tmp_path / "small.pth", tmp_path / "out")


def test_missing_and_additional_tensors_are_refused(tmp_path: Path):
    tensors = dict(make(CONFIG).state_dict())
    lacking = {k: v for k, v in tensors.items() if k != "dec_blocks_state.1.norm1.bias"}
    with pytest.raises(CheckpointError, match=r"1 key\(s\) missing: \['dec_blocks_state.1.norm1.bias'\]"):
        checkpoint_to_folder(write(tmp_path / "a.pth", lacking, {"model": ARGUMENTS}), tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"1 key\(s\) unknown: \['extra.weight'\]"):
        checkpoint_to_folder(write(tmp_path / "a.pth", tensors | {"extra.weight": torch.zeros(2)},
                                   {"model": ARGUMENTS}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "complaint"), [
    ("Net(Config(a=__import__('os').system('true')))", "holds '__import__"),
    ("Net(Config(a=[x for x in (1,)]))", "expected literals, tuples and inf"),
    ("Net(Config(**{'a': 1}))", "expected literals"),
    ("Net(Config(1))", "expected literals"),
    ("Net(a=1)", "expected literals"),
    ("__import__('os')", "expected literals"),
    ("Net(Config(a=-'x'))", "expected literals"),
    ("Net(Config(a=1)", "is no Python expression")])
def test_arguments_are_parsed_and_never_evaluated(text: str, complaint: str):
    with pytest.raises(CheckpointError, match=complaint):
        parse_arguments(text)


def test_the_official_argument_string_is_understood():
    assert parse_arguments("N(C(a=1, b='x', c=('exp', -inf, inf), d=-2.5, e=None, f=True))") == {
        "a": 1, "b": "x", "c": ("exp", -math.inf, math.inf), "d": -2.5, "e": None, "f": True}


def test_the_command_reports_in_words_and_as_json(tmp_path: Path, capsys):
    source = write(tmp_path / "a.pth", dict(make(CONFIG).state_dict()), {"model": ARGUMENTS})
    assert main(["convert", "checkpoint", str(source), str(tmp_path / "out")]) == 0
    assert "network 'custom'" in capsys.readouterr().out
    assert main(["convert", "checkpoint", str(source), str(tmp_path / "half"), "--half", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] < 0.6 * (tmp_path / "out" / "model.safetensors").stat().st_size
    assert main(["convert", "checkpoint", str(source), str(tmp_path / "out"), "--preset", "human3r_896l"]) == 2
    assert "is not preset 'human3r_896l'" in capsys.readouterr().err
