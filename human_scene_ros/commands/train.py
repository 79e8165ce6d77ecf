"""`human-scene train DATA OUT`: train a preset on shards of synthetic worlds; resumes by itself."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    from human_scene_ros.training.config import PRESETS

    parser.add_argument("data", type=Path, help="folder of shards made by 'human-scene synthesize'")
    parser.add_argument("out", type=Path, help="run folder; holds last.pt, ema.safetensors, log.jsonl")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="nano")
    parser.add_argument("--minutes", type=float, help="budget of the whole run (default: the preset's)")
    parser.add_argument("--batch-clips", type=int, help="clips per step and process (default: the preset's)")
    parser.add_argument("--seed", type=int, help="of everything random (default: the preset's)")
    parser.add_argument("--scene", type=Path, help="weights that a new run starts from")
    parser.add_argument("--bodies", type=Path, help="weights whose window head a new run starts from")
    parser.add_argument("--body", type=Path, help="SMPL-X .npz that the betas of the shards belong to, for shards of "
                                                  "a data set (default: the open body of our own worlds)")
    parser.add_argument("--device", default="cpu", help="torch device, e.g. cuda:0 (default cpu)")
    parser.add_argument("--threads", type=int, default=1, help="torch CPU threads (default 1)")


def run(arguments: argparse.Namespace) -> int:
    """Train until the budget is spent."""
    from human_scene_ros.training.config import PRESETS
    from human_scene_ros.training.train import train

    changes = {name: getattr(arguments, name) for name in ("minutes", "batch_clips", "seed")
               if getattr(arguments, name) is not None}
    config = dataclasses.replace(PRESETS[arguments.preset], **changes)
    progress = train(arguments.data, arguments.out, config, arguments.device, arguments.threads,
                     arguments.scene, arguments.bodies, arguments.body)
    print(f"{progress.frames} frames in {progress.step} steps and {progress.seconds / 60:.1f} min: "
          f"{arguments.out / 'ema.safetensors'}")
    return 0
