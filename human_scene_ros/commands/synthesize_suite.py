"""`human-scene synthesize OUT --suite NAME`: the synthetic test set as recordings, OUT/SUITE/SEQUENCE."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from human_scene_ros.commands.evaluation_output import code_sha256
from human_scene_ros.commands.synthesize import write_recording
from human_scene_ros.errors import ConfigError
from human_scene_ros.sources.bag_writer import MANIFEST

if TYPE_CHECKING:
    from human_scene_ros.synthetic.testset import SuiteSequence

_WORLD_LAYERS = ("geometry", "body", "synthetic")

DEPTH_EVERY_OF_LONG = 10
"""Of recordings beyond a thousand frames: depth of every frame would be most of the file and say no more."""


def write_suites(arguments: argparse.Namespace) -> dict[str, object]:
    """Write what is missing of the chosen suites; the report of `human-scene synthesize`.

    Raises:
        ConfigError: There is no such suite.
    """
    from tqdm import tqdm

    from human_scene_ros.synthetic.renderer import make_renderer
    from human_scene_ros.synthetic.testset import TEST_SET

    names = list(TEST_SET) if arguments.suite == "all" else [arguments.suite]
    if names[0] not in TEST_SET:
        raise ConfigError(f"--suite {arguments.suite}: expected one of {', '.join(TEST_SET)}, all")
    jobs: list[tuple[Path, SuiteSequence, dict[str, Any]]] = []
    for name in names:
        for sequence in TEST_SET[name]:
            sequence = dataclasses.replace(sequence, config=dataclasses.replace(
                sequence.config, renderer=arguments.renderer))
            config = sequence.config
            drawn_by = make_renderer(config.width, config.height, config.smooth, config.renderer).name
            jobs.append((arguments.out / name / sequence.name, sequence, manifest(name, sequence, drawn_by)))
    missing = [job for job in jobs if not _complete(job[0], job[2])]
    began, cpu_s = time.monotonic(), 0.0
    frames = sum(_frames(s) for _, s, _ in missing)
    # The longest first: the others then fill the other processes.
    missing.sort(key=lambda job: -_frames(job[1]))
    # One thread per process: threads of the software GL would fight over the cores.
    limits = {**dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS"), "1"), **os.environ}
    os.environ.update(limits)
    with tqdm(total=frames, unit="frame", desc="render", disable=True if arguments.json else None) as bar:
        if arguments.workers <= 1 or len(missing) <= 1:
            for job in missing:
                cpu_s += write_sequence(*job, on_frame=bar.update)
        else:
            with ProcessPoolExecutor(min(arguments.workers, len(missing)), mp_context=get_context("spawn")) as pool:
                futures = {pool.submit(write_sequence, *job): job[1] for job in missing}
                for future in as_completed(futures):
                    cpu_s += future.result()
                    bar.update(_frames(futures[future]))
    config = jobs[0][1].config
    return {"recordings": len(jobs), "written": len(missing), "frames": frames,
            "size": f"{config.width}x{config.height}", "wall_s": time.monotonic() - began, "cpu_s": cpu_s,
            "frames_per_cpu_s": frames / max(cpu_s, 1e-9), "renderer": str(jobs[0][2]["renderer"])}


def manifest(suite: str, sequence: SuiteSequence, renderer: str) -> dict[str, Any]:
    """What decides the content of a recording, as its manifest.yaml says it: also the code that makes worlds."""
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(sequence.config).items()}
    return {"dataset": f"synthetic-{suite}", "sequence": sequence.name, "licence": "Apache-2.0", "seed": sequence.seed,
            "cameras": sequence.cameras, "renderer": renderer, "code_sha256": code_sha256(_WORLD_LAYERS),
            "config": config}


def write_sequence(folder: Path, sequence: SuiteSequence, facts: dict[str, Any],
                   on_frame: Callable[[], object] = lambda: None) -> float:
    """Render one recording; CPU seconds. It appears under its name only when it is complete."""
    from human_scene_ros.commands.synthesize_rig import write_rig_recording
    from human_scene_ros.synthetic.world import SyntheticWorld

    began = time.process_time()
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if sequence.cameras > 1:
        write_rig_recording(partial, sequence.seed, sequence.config, sequence.cameras, image_truth=True, quality=90,
                            on_frame=on_frame)
    else:
        every = DEPTH_EVERY_OF_LONG if sequence.config.num_frames > 1000 else 1
        write_recording(partial, SyntheticWorld(sequence.seed, sequence.config), depth_every=every,
                        on_frame=on_frame)
    (partial / MANIFEST).write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")
    for file in partial.glob(f"{partial.name}*"):  # the storage file is named after the folder
        file.rename(partial / file.name.replace(partial.name, folder.name))
    metadata = partial / "metadata.yaml"
    metadata.write_text(metadata.read_text(encoding="utf-8").replace(partial.name, folder.name), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return time.process_time() - began


def _complete(folder: Path, facts: dict[str, Any]) -> bool:
    with contextlib.suppress(OSError, yaml.YAMLError):
        return bool(yaml.safe_load((folder / MANIFEST).read_text(encoding="utf-8")) == facts)
    return False


def _frames(sequence: SuiteSequence) -> int:
    return sequence.config.num_frames * sequence.cameras
