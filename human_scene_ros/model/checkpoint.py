"""Weights on disk: safetensors with the configuration inside, loaded strictly or refused with the reason.

One format for everything: float16 or float32 tensors, and in the file's metadata "config" (the NetworkConfig as
JSON) and "card" (free JSON: what the weights are and what they are worth). A folder holds `model.safetensors` and
the same two as readable `model.json`. Nothing here unpickles; official checkpoints go through
`human-scene convert checkpoint` once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from human_scene_ros.config import from_mapping, to_mapping
from human_scene_ros.errors import CheckpointError, ConfigError
from human_scene_ros.model.network import HumanSceneNetwork, NetworkConfig
from human_scene_ros.model.presets import PRESETS

FORMAT = "human_scene_ros.network.1"
WEIGHTS_NAME, CARD_NAME = "model.safetensors", "model.json"
SHIPPED = Path(__file__).with_name("data")
SHOWN_KEYS = 5


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """What was loaded.

    Args:
        path: The weights file.
        name: Name of the network configuration.
        sha256: Of the weights file.
        note: One line on what the weights are worth; "" if the file says nothing.
        card: Everything the file says about itself.
    """

    path: Path
    name: str
    sha256: str
    note: str
    card: dict[str, Any]


def save_checkpoint(path: Path, network: HumanSceneNetwork, card: dict[str, Any],
                    dtype: torch.dtype | None = None) -> Path:
    """Write the weights, complete or not at all.

    Args:
        path: A `.safetensors` file, or a folder (made if missing) that also gets a readable `model.json`.
        network: Its parameters and buffers are stored; tensors that appear under two names once.
        card: JSON-able facts; "note" is what users are shown.
        dtype: Store floating-point tensors as this type; None: as they are.

    Returns:
        The weights file.
    """
    path = Path(path)
    file = path if path.suffix == ".safetensors" else path / WEIGHTS_NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    alias_of = _aliases(network)
    tensors = {name: _stored(value, dtype) for name, value in network.state_dict().items() if name not in alias_of}
    metadata = {"format": FORMAT, "config": json.dumps(to_mapping(network.config)), "card": json.dumps(card)}
    part = file.with_name(file.name + ".part")
    save_file(tensors, part, metadata)
    part.replace(file)
    if file != path:
        text = json.dumps({"format": FORMAT, "config": to_mapping(network.config), "card": card}, indent=1)
        file.with_name(CARD_NAME).write_text(text + "\n")
    return file


def load_network(path_or_preset: str | Path, device: str | torch.device = "cpu", *,
                 expect_preset: str | None = None) -> tuple[HumanSceneNetwork, CheckpointInfo]:
    """Load a network for inference (float32, eval mode).

    Args:
        path_or_preset: A weights file, a folder with `model.safetensors`, or the name of a preset whose weights
            ship with the package (nano).
        device: Where to.
        expect_preset: Refuse weights whose configuration is not the one of this preset.

    Raises:
        CheckpointError: The file is missing, damaged, of another preset, or its keys or shapes do not fit.
    """
    file = find_weights(path_or_preset)
    config, card, tensors = _read(file)
    if expect_preset is not None:
        _check_preset(file, config, expect_preset)
    network = unfilled_network(config)
    load_strictly(network, tensors, str(file))
    network.to(device).eval().requires_grad_(False)
    return network, CheckpointInfo(file, config.name, _sha256(file), str(card.get("note", "")), card)


def find_weights(path_or_preset: str | Path) -> Path:
    """The weights file that is meant.

    Raises:
        CheckpointError: There is none; the text says how to get it.
    """
    name = str(path_or_preset)
    if name in PRESETS:
        file = SHIPPED / f"{name}.safetensors"
        if not file.is_file():
            raise CheckpointError(f"no weights of preset '{name}' ship with this installation. {_how_to_get(name)}")
        return file
    path = Path(path_or_preset)
    file = path / WEIGHTS_NAME if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; expected a .safetensors file, a folder with {WEIGHTS_NAME} "
                              f"or one of the presets {sorted(PRESETS)}. {_how_to_get(name)}")
    if file.suffix in (".pth", ".pt", ".ckpt", ".bin"):
        raise CheckpointError(f"{file} is a pickle, which this package does not load directly. Convert it once: "
                              f"human-scene convert checkpoint {file} {file.with_suffix('')}")
    return file


def describe_weights(path_or_preset: str | Path) -> CheckpointInfo:
    """What `load_network` would load, from the file's header alone.

    Raises:
        CheckpointError: The file is missing, damaged or not of this package.
    """
    file = find_weights(path_or_preset)
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
        name, card = json.loads(metadata["config"])["name"], json.loads(metadata["card"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{file} ({file.stat().st_size} bytes) is truncated or no weights file of this package "
                              f"({type(error).__name__}: {error}); copy or convert it again") from error
    return CheckpointInfo(file, str(name), _sha256(file), str(card.get("note", "")), card)


class _Unfilled(TorchFunctionMode):
    """Tensors stay as they are allocated where layers would fill them with noise; no random number is drawn."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_):
            return kwargs["tensor"]
        return (torch.empty if func is torch.randn else func)(*args, **(kwargs or {}))


def unfilled_network(config: NetworkConfig) -> HumanSceneNetwork:
    """A network on the CPU with names and shapes but without values, for `load_strictly` to fill.

    Memory that nobody writes to is not taken. The meta device would do as well, but torch computes there with parts
    of its compiler, whose import takes longer than all the rest of loading a small network.
    """
    with _Unfilled():
        return HumanSceneNetwork(config)


def load_strictly(network: HumanSceneNetwork, tensors: dict[str, Tensor], source: str) -> None:
    """Fill every parameter and buffer of `network`, or none.

    Args:
        network: For instance an `unfilled_network`.
        tensors: By name; floating-point tensors become float32. A tensor stored under two names in official
            checkpoints may come under one of them.
        source: Named in errors.

    Raises:
        CheckpointError: Keys are missing or left over, shapes differ, or two copies of one tensor disagree.
    """
    alias_of = _aliases(network)
    tensors = dict(tensors)
    for alias, name in alias_of.items():
        if alias in tensors and name in tensors:
            if not torch.equal(tensors[alias], tensors[name]):
                raise CheckpointError(f"{source}: '{alias}' and '{name}' are one tensor of the network, but their "
                                      f"values differ; the file is damaged or was edited")
        elif alias in tensors or name in tensors:
            tensors[alias] = tensors[name] = tensors.get(name, tensors.get(alias))  # type: ignore[assignment]
    wanted = network.state_dict()
    missing, extra = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or extra:
        raise CheckpointError(
            f"{source} does not fit network '{network.config.name}': {_listing('missing', missing)}"
            f"{', ' if missing and extra else ''}{_listing('unknown', extra)}. {_likely_preset(tensors)}")
    wrong = [f"{k} is {_shape(tensors[k])}, expected {_shape(wanted[k])}"
             for k in wanted if tensors[k].shape != wanted[k].shape]
    if wrong:
        raise CheckpointError(f"{source} does not fit network '{network.config.name}': {len(wrong)} tensor(s) of "
                              f"another shape: {'; '.join(wrong[:SHOWN_KEYS])}. {_likely_preset(tensors)}")
    network.load_state_dict({k: _stored(v, torch.float32) for k, v in tensors.items()}, strict=True, assign=True)


def _aliases(network: nn.Module) -> dict[str, str]:
    """Second names of tensors -> their first name."""
    first: dict[int, str] = {}
    return {name: first[id(value)] for name, value in network.state_dict(keep_vars=True).items()
            if first.setdefault(id(value), name) != name}


def _stored(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    value = value.detach()
    return (value.to(dtype) if dtype is not None and value.is_floating_point() else value).contiguous()


def _read(file: Path) -> tuple[NetworkConfig, dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} ({file.stat().st_size} bytes) is truncated or no safetensors file ({error}); "
                              f"copy or convert it again") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{file} has format {metadata.get('format')!r} in its metadata, expected '{FORMAT}'; "
                              f"only files made by this package carry the network's configuration")
    try:
        return from_mapping(NetworkConfig, json.loads(metadata["config"])), json.loads(metadata["card"]), tensors
    except (ConfigError, KeyError, ValueError) as error:
        raise CheckpointError(f"{file}: its configuration cannot be used ({error}); it was made by another version "
                              f"of this package or edited") from error


def _check_preset(file: Path, config: NetworkConfig, expected: str) -> None:
    if expected not in PRESETS:
        raise CheckpointError(f"preset '{expected}' does not exist; expected one of {sorted(PRESETS)}")
    if config.name != expected:
        raise CheckpointError(f"{file} holds network '{config.name}', but preset '{expected}' was asked for; set the "
                              f"preset to '{config.name}' or give the weights of '{expected}'")


def _how_to_get(name: str) -> str:
    preset = next((p for p in PRESETS if p in name.lower()), "human3r_896l")
    if preset == "nano":
        return "Reinstall the package, or train it: human-scene synthesize DATA && human-scene train DATA OUT"
    official = f"human3r_{preset.rsplit('_', 1)[1].upper()}.pth"
    return (f"Official weights: hf download faneggg/human3r {official} --local-dir . && "
            f"human-scene convert checkpoint {official} {preset}")


def _listing(what: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f"{len(keys)} key(s) {what}: {keys[:SHOWN_KEYS]}{more}"


def _likely_preset(tensors: dict[str, Tensor]) -> str:
    """Name the preset that the shapes point to."""
    width = tensors.get("backbone.encoder.cls_token")
    if width is None:
        known = "nano" if "downstream_head.window.out.weight" in tensors else None
    else:
        known = {384: "human3r_672s", 768: "human3r_672b", 1024: "human3r_672l or human3r_896l"}.get(width.shape[-1])
    return f"Its shapes are those of {known}" if known else "Its shapes fit no preset of this package"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) if math.prod(tensor.shape) != 1 or tensor.ndim else "scalar"


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
