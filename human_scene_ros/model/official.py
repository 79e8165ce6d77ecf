"""Official checkpoints (.pth): read without executing anything, understand their arguments, hand out plain tensors.

A checkpoint is a pickle, and a pickle is a program. It is read by torch's restricted unpickler; the few classes of
the configuration library that official files name are replaced by inert stand-ins, and any other name refuses the
file. The network's arguments are a Python call in a string; it is parsed, never evaluated.
"""

from __future__ import annotations

import ast
import collections
import dataclasses
import math
import pickle
import re
import typing
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from human_scene_ros.config import to_mapping
from human_scene_ros.errors import CheckpointError
from human_scene_ros.model.network import BackboneConfig, DptConfig, NetworkConfig
from human_scene_ros.model.presets import PRESETS

STAND_INS = ("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig",
             "omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode")
HARMLESS = {"typing.Any": typing.Any, "builtins.dict": dict, "builtins.list": list, "builtins.int": int,
            "collections.defaultdict": collections.defaultdict}
# Values of arguments that the string may leave out.
DEFAULTS: dict[str, Any] = {
    "state_pe": "2d", "patch_size": 16, "norm_im2_in_dec": True, "state_dec_num_heads": 16, "mhmr_img_res": None}
# Arguments with a fixed meaning here: other values would be another network.
FIXED: dict[str, Any] = {
    "state_pe": "2d", "patch_size": 16, "norm_im2_in_dec": True, "pos_embed": "RoPE100", "head_type": "dpt",
    "output_mode": "pts3d+pose+smpl", "depth_mode": ("exp", -math.inf, math.inf),
    "conf_mode": ("exp", 1, math.inf), "pose_mode": ("exp", -math.inf, math.inf)}
# Present in checkpoints, never read by streaming inference.
UNUSED = re.compile(
    r"(patch_embed_ray_map|enc_blocks_ray_map|enc_norm_ray_map|masked_(img|ray_map|smpl)_token|"
    r"mhmr_masked_(img|smpl)_token|backbone\.encoder\.mask_token|downstream_head\.init_(cam|betas_kid)|"
    r"downstream_head\.dpt_\w+\.scratch\.refinenet4\.resConfUnit1)(\.|$)")
ALIAS = re.compile(r"(downstream_head\.dpt_\w+\.scratch)\.layer_rn\.([0-3])\.weight$")
BACKBONE_HEADS = {"dinov2_vits14": 6, "dinov2_vitb14": 12, "dinov2_vitl14": 16}


@dataclasses.dataclass(frozen=True)
class OfficialCheckpoint:
    """What a .pth holds.

    Args:
        tensors: By name, a `module.` prefix removed.
        arguments: Keyword arguments of the network's configuration; empty if the file has none.
    """

    tensors: dict[str, Tensor]
    arguments: dict[str, Any]


def _stand_in(name: str) -> type:
    """An empty class of that dotted name whose instances only store what the pickle gives them."""
    module, _, qualname = name.rpartition(".")

    def remember(self: Any, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})

    return type(qualname, (), {"__module__": module, "__qualname__": qualname, "__setstate__": remember})


def read_official(path: Path) -> OfficialCheckpoint:
    """Read a checkpoint written by torch.save, executing none of it.

    Raises:
        CheckpointError: The file is missing, truncated, names classes that are not expected (all are listed) or
            holds no state dict under "model".
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; expected an official checkpoint such as human3r_896L.pth")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} ({path.stat().st_size} bytes) is truncated or was not written by torch.save; "
                              f"compare its size with the download page and fetch it again")
    try:
        named = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        unexpected = sorted(named - set(STAND_INS) - set(HARMLESS))
        if unexpected:
            raise CheckpointError(f"{path} names {len(unexpected)} unexpected global(s) in its pickle: {unexpected}. "
                                  f"Loading them could run code, so nothing was loaded; official checkpoints do not "
                                  f"need them")
        allowed: list[Any] = [_stand_in(name) for name in STAND_INS]
        allowed += [(value, name) for name, value in HARMLESS.items()]
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        if isinstance(error, CheckpointError):
            raise
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} ({path.stat().st_size} bytes) cannot be read: {first_line}") from error
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()) or not tensors:
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} holds no tensors under 'model' (found {found}); expected a Human3R checkpoint")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    text = _model_string(content.get("args"))
    return OfficialCheckpoint(dict(tensors), parse_arguments(text) if text else {})


def _model_string(arguments: Any) -> str | None:
    """`args.model` of a stand-in for the configuration, or of a plain dict."""
    holder = getattr(arguments, "__dict__", {}).get("_content", arguments)
    value = holder.get("model") if isinstance(holder, dict) else None
    value = getattr(value, "__dict__", {}).get("_val", value)
    return value if isinstance(value, str) else None


def parse_arguments(text: str) -> dict[str, Any]:
    """Keyword arguments of the inner call in "Net(Config(a=1, b=('exp', -inf, inf)))", without evaluating it.

    Raises:
        CheckpointError: The text is anything but one call around one call with literal keyword arguments.
    """
    def refuse(node: ast.AST) -> CheckpointError:
        return CheckpointError(f"args.model of the checkpoint holds '{ast.unparse(node)}'; expected literals, tuples "
                               f"and inf as keyword arguments, so it was not used")

    def literal(node: ast.AST) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, (ast.Tuple, ast.List)):
            return tuple(literal(e) for e in node.elts)
        if isinstance(node, ast.Name) and node.id == "inf":
            return math.inf
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = literal(node.operand)
            if isinstance(value, (int, float)):
                return -value
        raise refuse(node)

    try:
        outer = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise CheckpointError(f"args.model of the checkpoint is no Python expression ({error}): "
                              f"{text[:80]!r}") from error
    if not isinstance(outer, ast.Call) or len(outer.args) != 1 or outer.keywords:
        raise refuse(outer)
    inner = outer.args[0]
    if not isinstance(inner, ast.Call) or inner.args or any(k.arg is None for k in inner.keywords):
        raise refuse(inner)
    return {str(k.arg): literal(k.value) for k in inner.keywords}


def network_config(checkpoint: OfficialCheckpoint, source: str, preset: str | None = None) -> NetworkConfig:
    """The configuration of a checkpoint: sizes from its shapes, head counts from its arguments or the preset.

    Args:
        checkpoint: From `read_official`.
        source: File name, for messages; "672" or "896" in it decides the human image if nothing else does.
        preset: What the user says it is; None: recognise it.

    Raises:
        CheckpointError: Shapes, arguments and preset do not agree, or a size cannot be told.
    """
    tensors, given = checkpoint.tensors, DEFAULTS | checkpoint.arguments
    if preset is not None and preset not in PRESETS:
        raise CheckpointError(f"preset '{preset}' does not exist; expected one of {sorted(PRESETS)}")
    for name, expected in FIXED.items():
        if given.get(name, expected) != expected:
            raise CheckpointError(f"{source} was made with {name} = {given[name]!r}; this network has {expected!r}")
    shape = _Shapes(tensors, source)
    e, d, b = shape("enc_norm.weight")[0], shape("dec_norm.weight")[0], shape("backbone.encoder.cls_token")[2]
    backbone_depth = shape.count("backbone.encoder.blocks")
    square_px = given["mhmr_img_res"] or _square_px(source, preset)
    config = NetworkConfig(
        name="custom",
        enc_embed_dim=e, enc_depth=shape.count("enc_blocks"), enc_num_heads=given.get("enc_num_heads", e // 64),
        dec_embed_dim=d, dec_depth=shape.count("dec_blocks"), dec_num_heads=given.get("dec_num_heads", d // 64),
        state_dec_num_heads=given["state_dec_num_heads"], state_size=shape("register_tokens.weight")[0],
        local_mem_size=shape("pose_retriever.mem")[1], mlp_ratio=shape("enc_blocks.0.mlp.fc1.weight")[0] / e,
        ray_enc_depth=shape.count("enc_blocks_ray_map") or NetworkConfig.ray_enc_depth,
        backbone=BackboneConfig(
            embed_dim=b, depth=backbone_depth, image_px=square_px, patch_px=14,
            num_heads=max(1, b // 64), table_side=math.isqrt(shape("backbone.encoder.pos_embed")[1] - 1)),
        dpt=DptConfig(
            feature_dim=shape("downstream_head.dpt_self.scratch.layer1_rn.weight")[0],
            last_dim=shape("downstream_head.dpt_self.head.0.weight")[0],
            layer_dims=tuple(shape(f"downstream_head.dpt_self.act_postprocess.{i}.0.weight")[0]  # type: ignore[arg-type]
                             for i in range(4))),
        rgb_head="downstream_head.dpt_rgb.head.0.weight" in tensors,
        mask_head="downstream_head.mlp_msk.mlp.layers.0.weight" in tensors)
    for name, value in checkpoint.arguments.items():
        if hasattr(config, name) and name not in ("backbone",) and getattr(config, name) != value:
            raise CheckpointError(f"{source}: its arguments say {name} = {value!r}, its tensors "
                                  f"{getattr(config, name)!r}; the file is inconsistent")
    heads = BACKBONE_HEADS.get(checkpoint.arguments.get("backbone", ""), config.backbone.num_heads)
    if heads != config.backbone.num_heads:
        raise CheckpointError(f"{source}: its arguments say backbone = {checkpoint.arguments['backbone']!r}, but its "
                              f"backbone tensors are {b} wide; the file is inconsistent")
    return _named(config, source, preset)


def _named(config: NetworkConfig, source: str, preset: str | None) -> NetworkConfig:
    """`config` with the name of the preset it equals."""
    def differences(name: str) -> list[str]:
        ours, theirs = _flat(to_mapping(config)), _flat(to_mapping(PRESETS[name]))
        return [f"{k}: file {ours[k]!r}, preset {theirs[k]!r}" for k in ours if k != "name" and ours[k] != theirs[k]]

    matching = [name for name in PRESETS if not differences(name)]
    if preset is not None and preset not in matching:
        looks = f"it is '{matching[0]}'" if matching else "it is none of the presets"
        raise CheckpointError(f"{source} is not preset '{preset}' ({looks}); {'; '.join(differences(preset)[:4])}")
    return dataclasses.replace(config, name=matching[0] if matching else "custom")


def _flat(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _square_px(source: str, preset: str | None) -> int:
    if preset is not None:
        return PRESETS[preset].backbone.image_px
    sizes = re.findall(r"672|896", source)
    if not sizes:
        raise CheckpointError(f"{source} does not say the size of its human image (672 or 896 px) in its arguments or "
                              f"its name; add --preset, one of {sorted(p for p in PRESETS if p != 'nano')}")
    return int(sizes[-1])


class _Shapes:
    """Shapes by key, with an error that names the missing key."""

    def __init__(self, tensors: dict[str, Tensor], source: str) -> None:
        self.tensors, self.source = tensors, source

    def __call__(self, key: str) -> tuple[int, ...]:
        if key not in self.tensors:
            raise CheckpointError(f"{self.source} has no tensor '{key}'; it is no complete Human3R checkpoint "
                                  f"({len(self.tensors)} tensors)")
        return tuple(self.tensors[key].shape)

    def count(self, prefix: str) -> int:
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
        return len({m.group(1) for m in map(pattern.match, self.tensors) if m})


def split_unused(tensors: dict[str, Tensor], *, keep: bool) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors to store and the names left out.

    With `keep` everything stays. Without, what streaming never reads goes, and so do second copies, which must
    equal the first.

    Raises:
        CheckpointError: Two copies of one tensor differ.
    """
    if keep:
        return tensors, []
    kept = {}
    for name, value in tensors.items():
        alias = ALIAS.match(name)
        if alias is not None:
            first = f"{alias.group(1)}.layer{int(alias.group(2)) + 1}_rn.weight"
            if first in tensors and not torch.equal(tensors[first], value):
                raise CheckpointError(f"'{name}' and '{first}' are one tensor of the network, but their values differ")
            if first not in tensors:
                kept[first] = value
        elif not UNUSED.match(name):
            kept[name] = value
    return kept, sorted(set(tensors) - set(kept))
