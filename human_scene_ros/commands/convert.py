"""`human-scene convert KIND ...`: foreign files -> files this package loads."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from human_scene_ros.errors import CheckpointError

LICENCE = ("Human3R weights come from their authors and keep their licence (non-commercial at the time of writing); "
           "this file is a conversion, not a new work")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand, by kind."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    checkpoint = kinds.add_parser("checkpoint", help="official .pth -> safetensors + JSON",
                                  description="Read an official checkpoint without executing its pickle and store "
                                              "it as safetensors with its configuration.")
    checkpoint.add_argument("source", type=Path, help="official checkpoint, e.g. human3r_896L.pth")
    checkpoint.add_argument("out", type=Path, help="folder for model.safetensors and model.json")
    checkpoint.add_argument("--preset", help="what it is, e.g. human3r_896l (default: recognised; else checked)")
    checkpoint.add_argument("--half", action="store_true", help="store float16: half the size, rounded weights")
    checkpoint.add_argument("--drop-unused", action="store_true",
                            help="leave out tensors that streaming never reads (107 MB of 4.7 GB)")
    checkpoint.add_argument("--json", action="store_true", help="print one JSON object")
    checkpoint.set_defaults(convert=convert_checkpoint)


def run(arguments: argparse.Namespace) -> int:
    """Run the conversion of the chosen kind."""
    return int(arguments.convert(arguments))


def convert_checkpoint(arguments: argparse.Namespace) -> int:
    """`human-scene convert checkpoint`."""
    if not arguments.json and arguments.source.is_file():
        print(f"converting {arguments.source} ({arguments.source.stat().st_size / 1e6:.0f} MB) ...", flush=True)
    report = checkpoint_to_folder(arguments.source, arguments.out, arguments.preset, half=arguments.half,
                                  drop_unused=arguments.drop_unused)
    if arguments.json:
        print(json.dumps(report))
    else:
        print(f"{report['source']}: network '{report['name']}', {report['tensors']} tensors, "
              f"{report['parameters'] / 1e6:.1f} M parameters")
        if report["dropped"]:
            print(f"left out {len(report['dropped'])} tensors that streaming never reads")
        print(f"wrote {report['file']} ({report['bytes'] / 1e6:.1f} MB)\nuse it with model.checkpoint: {arguments.out}")
    return 0


def checkpoint_to_folder(source: Path, out: Path, preset: str | None = None, *, half: bool = False,
                         drop_unused: bool = False) -> dict[str, Any]:
    """Convert an official checkpoint.

    Args:
        source: The .pth file.
        out: Folder; made if missing.
        preset: Refuse anything else; None: recognise.
        half: Store float16.
        drop_unused: Leave out what streaming never reads.

    Returns:
        source, name, file, bytes, tensors, parameters, dropped.

    Raises:
        CheckpointError: See `human_scene_ros.model.official`; or keys or shapes do not fit the network.
    """
    import torch

    from human_scene_ros.model.checkpoint import load_strictly, save_checkpoint
    from human_scene_ros.model.network import HumanSceneNetwork
    from human_scene_ros.model.official import UNUSED, network_config, read_official, split_unused

    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file; expected a folder for the converted weights")
    official = read_official(source)
    config = network_config(official, source.name, preset)
    keep = not drop_unused and _has_all_unused(official.tensors, config, UNUSED)
    tensors, dropped = split_unused(official.tensors, keep=keep)
    config = dataclasses.replace(config, unused_keys=keep)
    with torch.device("meta"):
        network = HumanSceneNetwork(config)
    load_strictly(network, tensors, str(source))
    card = {"note": f"official weights {source.name}", "source": source.name, "licence": LICENCE,
            "arguments": {k: repr(v) for k, v in official.arguments.items()}, "dropped": dropped}
    file = save_checkpoint(out, network, card, torch.float16 if half else None)
    return {"source": str(source), "name": config.name, "file": str(file), "bytes": file.stat().st_size,
            "tensors": len(tensors), "parameters": sum(p.numel() for p in network.parameters()), "dropped": dropped}


def _has_all_unused(tensors: dict[str, Any], config: Any, unused: Any) -> bool:
    """True if none of the tensors that only complete checkpoints carry has been stripped."""
    import torch

    from human_scene_ros.model.network import HumanSceneNetwork

    with torch.device("meta"):
        names = HumanSceneNetwork(dataclasses.replace(config, unused_keys=True)).state_dict()
    return all(name in tensors for name in names if unused.match(name))
