"""`human-scene evaluate KIND`: recordings with truth, finished results, or freshly generated worlds."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from human_scene_ros.commands import evaluate_bag, evaluate_results

KEYS_AND_UNITS = {
    "head_recall": "", "head_precision": "", "pa_mpjpe_mm": "mm", "mpjpe_mm": "mm", "pelvis_rel_error": "",
    "root_rot_median_deg": "deg", "root_rot_mean_deg": "deg",
    "depth_absrel": "", "depth_absrel_median": "", "ate_rel": "", "rpe_rot_deg": "deg", "frames": "",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    synthetic = kinds.add_parser("synthetic", help="worlds generated from a seed")
    synthetic.add_argument("--seed", type=int, required=True, help="first world; world k uses seed * 100003 + k")
    synthetic.add_argument("--worlds", type=int, default=10, help="number of worlds (default 10)")
    synthetic.add_argument("--frames", type=int, default=30, help="frames of each world (default 30)")
    synthetic.add_argument("--size", default="320x240", help="size of the rendered images (default 320x240)")
    synthetic.add_argument("--suite", choices=("rooms", "varied", "indoor", "outdoor", "crowd"), default="rooms",
                           help="rooms: everyday scenes indoors (default); varied: everything that training draws "
                                "from; the others: worlds like those of the test set, from --seed")
    synthetic.add_argument("--no-intrinsics", action="store_true", help="hide the focal length from the stream")
    synthetic.add_argument("--preset", default="nano", help="network preset (default nano)")
    synthetic.add_argument("--checkpoint", type=Path, help="weights (default: those that ship with the preset)")
    synthetic.add_argument("--json", action="store_true", help="print one JSON object")
    synthetic.set_defaults(evaluate=run_synthetic)
    bag = kinds.add_parser("bag", help="recordings with truth, offline and deterministic, or --live through ROS")
    evaluate_bag.add_arguments(bag)
    bag.set_defaults(evaluate=evaluate_bag.run)
    results = kinds.add_parser("results", help="results that exist already: recording, bodies.jsonl or trajectory")
    evaluate_results.add_arguments(results)
    results.set_defaults(evaluate=evaluate_results.run)


def run(arguments: argparse.Namespace) -> int:
    """Run the evaluation of the chosen kind."""
    return int(arguments.evaluate(arguments))


def run_synthetic(arguments: argparse.Namespace) -> int:
    """Generate, reconstruct, score."""
    result = evaluate_synthetic(arguments)
    if arguments.json:
        print(json.dumps(result))
        return 0
    for name, unit in KEYS_AND_UNITS.items():
        value = result[name]
        text = "undefined" if value is None else f"{value:.4g}"
        print(f"{name:22s} {text} {unit}")
    return 0


def evaluate_synthetic(arguments: argparse.Namespace) -> dict[str, float | int | None]:
    """Mean scores over the worlds; keys of `KEYS_AND_UNITS`, None where undefined."""
    from tqdm import tqdm

    from human_scene_ros.errors import ConfigError
    from human_scene_ros.evaluation.synthetic import SceneScores
    from human_scene_ros.runtime.engine import make_stream
    from human_scene_ros.scene import CameraFrame
    from human_scene_ros.synthetic.world import SUITES, SyntheticWorld

    if arguments.seed < 0 or arguments.worlds < 1 or arguments.frames < 2:
        raise ConfigError(f"--seed {arguments.seed} --worlds {arguments.worlds} --frames {arguments.frames}: need at "
                          "least seed 0, 1 world, 2 frames")
    width, _, height = arguments.size.partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise ConfigError(f"--size {arguments.size}: expected WIDTHxHEIGHT such as 320x240")
    config = dataclasses.replace(SUITES[arguments.suite], width=int(width), height=int(height),
                                 num_frames=arguments.frames)
    stream = make_stream(preset=arguments.preset, checkpoint=arguments.checkpoint)
    scores = SceneScores()
    with tqdm(total=arguments.worlds * arguments.frames, unit="frame", disable=arguments.json) as bar:
        for index in range(arguments.worlds):
            world = SyntheticWorld(arguments.seed * 100_003 + index, config)
            stream.reset()
            scores.begin_sequence()
            for k in range(arguments.frames):
                truth = world.frame(k)
                estimate = stream.step(CameraFrame(
                    truth.stamp_ns, truth.image, "camera", None if arguments.no_intrinsics else truth.camera))
                scores.add(estimate, truth)
                bar.update()
    return scores.result()
