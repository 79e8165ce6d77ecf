"""`human-scene convert KIND ...`: foreign files -> files this package loads."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from human_scene_ros.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from human_scene_ros.datasets.sequence import ConvertOptions

LICENCE = ("Human3R weights come from their authors and keep their licence (non-commercial at the time of writing); "
           "this file is a conversion, not a new work")

DATASET_NAMES = ("emdb", "rich", "3dpw", "egohumans", "egoexo4d", "tum", "bonn", "7scenes", "sintel", "bedlam",
                 "pose2sim", "caliscope")


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
    onnx = kinds.add_parser("onnx", help="weights -> ONNX graphs of the recurrent step",
                            description="Write the recurrent step as ONNX graphs, state in and state out. The node "
                                        "does this by itself at the first use of weights; as folder 'onnx' beside "
                                        "the weights they are found without it.")
    onnx.add_argument("out", type=Path, help="folder for look.onnx, decode.onnx, bodies.onnx and graphs.json")
    onnx.add_argument("--preset", default="nano", help="network preset (default nano)")
    onnx.add_argument("--checkpoint", type=Path, help="weights (default: those that ship with the preset)")
    onnx.add_argument("--json", action="store_true", help="print one JSON object")
    onnx.set_defaults(convert=convert_onnx)
    dataset = kinds.add_parser("dataset", help="a data set's folder -> recordings with images and truth",
                               description="Read a data set as its publishers distribute it and write one rosbag2 "
                                           "folder per sequence below OUT, for 'human-scene evaluate' and "
                                           "'human-scene run'. See docs/datasets.md for the folder layouts.")
    dataset.add_argument("name", metavar="NAME", choices=DATASET_NAMES, help=", ".join(DATASET_NAMES))
    dataset.add_argument("source", type=Path, metavar="SRC", help="folder of the data set or of one sequence")
    dataset.add_argument("out", type=Path, metavar="OUT", help="folder for the recordings; complete ones are kept")
    dataset.add_argument("--sequence", action="append", default=[], metavar="NAME",
                         help="only this sequence; may be given several times")
    dataset.add_argument("--body", type=Path, help="file or folder of the SMPL or SMPL-X model, where joints need it")
    dataset.add_argument("--no-people", action="store_true", help="images, cameras and depth only")
    dataset.add_argument("--only-people", action="store_true", help="leave out images without truth of people")
    dataset.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N time steps")
    dataset.add_argument("--every", type=int, default=1, metavar="N", help="every N-th time step (default 1)")
    dataset.add_argument("--limit", type=int, default=0, metavar="N", help="at most N time steps (default: all)")
    dataset.add_argument("--overwrite", action="store_true", help="replace recordings that are there already")
    dataset.add_argument("--shards", action="store_true", help="bedlam: write training shards instead")
    dataset.add_argument("--size", default="160x112", help="WIDTHxHEIGHT of the shards (default 160x112)")
    dataset.add_argument("--frames", type=int, default=4, help="frames per clip of the shards (default 4)")
    dataset.add_argument("--json", action="store_true", help="print one JSON object")
    dataset.set_defaults(convert=convert_dataset)


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


def convert_dataset(arguments: argparse.Namespace) -> int:
    """`human-scene convert dataset`."""
    from tqdm import tqdm

    from human_scene_ros.datasets.registry import DATASETS
    from human_scene_ros.datasets.sequence import ConvertOptions, open_sequences, write_sequence

    dataset = DATASETS[arguments.name]
    options = ConvertOptions(arguments.body, not arguments.no_people, arguments.every, arguments.limit,
                             arguments.only_people, arguments.skip)
    if arguments.shards:
        return _convert_shards(arguments, options)
    reports = []
    for sequence in open_sequences(dataset, arguments.source, options, arguments.sequence):
        with tqdm(total=sequence.frame_count, unit="image", desc=sequence.name, disable=arguments.json) as bar:
            report = write_sequence(dataset, sequence, arguments.out, options, overwrite=arguments.overwrite,
                                    on_frame=bar.update)
        reports.append(report)
        if not arguments.json:
            print(f"{report['folder']}: was complete already" if report["skipped"] else
                  f"{report['folder']}: {report['images']} images, {report['with_truth']} with camera pose, "
                  f"{report['with_people']} with truth of people, {report['bytes'] / 1e6:.1f} MB")
    if arguments.json:
        print(json.dumps({"dataset": dataset.name, "licence": dataset.licence, "sequences": reports}))
    else:
        print(f"licence of {dataset.title}: {dataset.licence}; do not pass the recordings on")
    return 0


def _convert_shards(arguments: argparse.Namespace, options: ConvertOptions) -> int:
    from tqdm import tqdm

    from human_scene_ros.commands.synthesize import parse_size
    from human_scene_ros.training.bedlam import write_bedlam_shards

    if arguments.name != "bedlam":
        raise ConfigError(f"--shards: {arguments.name} has no depth and masks for training; only bedlam has")
    if arguments.skip:
        raise ConfigError(f"--skip {arguments.skip}: --shards takes all of a sequence; use --every and --limit")
    width, height = parse_size(arguments.size)
    with tqdm(unit="frame", disable=arguments.json) as bar:
        report = write_bedlam_shards(arguments.source, arguments.out, options, width, height, arguments.frames,
                                     on_progress=bar.update)
    if arguments.json:
        print(json.dumps(report))
    else:
        print(f"{report['clips']} clips of {arguments.frames} frames in {report['shards']} shards: {arguments.out}")
    return 0


def convert_onnx(arguments: argparse.Namespace) -> int:
    """`human-scene convert onnx`."""
    from human_scene_ros.model.checkpoint import load_network
    from human_scene_ros.model.onnx_export import GRAPHS, export_step

    if arguments.out.exists() and not arguments.out.is_dir():
        raise CheckpointError(f"{arguments.out} is a file; expected a folder for the graphs")
    network, weights = load_network(arguments.checkpoint or arguments.preset, expect_preset=arguments.preset)
    export_step(network, arguments.out, weights.sha256)
    sizes = {f"{g}.onnx": (arguments.out / f"{g}.onnx").stat().st_size for g in GRAPHS}
    if arguments.json:
        print(json.dumps({"weights": str(weights.path), "sha256": weights.sha256, "out": str(arguments.out),
                          "bytes": sizes}))
    else:
        files = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in sizes.items())
        print(f"{weights.name} {weights.sha256[:12]} -> {arguments.out}: {files}")
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

    from human_scene_ros.model.checkpoint import load_strictly, save_checkpoint, unfilled_network
    from human_scene_ros.model.official import UNUSED, network_config, read_official, split_unused

    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out} is a file; expected a folder for the converted weights")
    official = read_official(source)
    config = network_config(official, source.name, preset)
    keep = not drop_unused and _has_all_unused(official.tensors, config, UNUSED)
    tensors, dropped = split_unused(official.tensors, keep=keep)
    config = dataclasses.replace(config, unused_keys=keep)
    network = unfilled_network(config)
    load_strictly(network, tensors, str(source))
    card = {"note": f"official weights {source.name}", "source": source.name, "licence": LICENCE,
            "arguments": {k: repr(v) for k, v in official.arguments.items()}, "dropped": dropped}
    file = save_checkpoint(out, network, card, torch.float16 if half else None)
    return {"source": str(source), "name": config.name, "file": str(file), "bytes": file.stat().st_size,
            "tensors": len(tensors), "parameters": sum(p.numel() for p in network.parameters()), "dropped": dropped}


def _has_all_unused(tensors: dict[str, Any], config: Any, unused: Any) -> bool:
    """True if none of the tensors that only complete checkpoints carry has been stripped."""
    from human_scene_ros.model.checkpoint import unfilled_network

    names = unfilled_network(dataclasses.replace(config, unused_keys=True)).state_dict()
    return all(name in tensors for name in names if unused.match(name))
