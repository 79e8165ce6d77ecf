"""Clips of synthetic worlds on disk: one folder per shard, one uncompressed .npy per field, for memory mapping.

C clips of T frames, people padded to P = 6 rows (see `FIELDS` for names, shapes and units). A shard appears under
its name only when it is complete, so readers may list a folder that is still growing.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ConfigError, SourceError
from human_scene_ros.synthetic.world import MAX_PEOPLE, SyntheticWorld, WorldConfig

CLIPS_PER_SHARD = 64
FRAME_SPACING_S = (0.07, 0.3)

# name -> dtype, shape after (C, T) or, for K, after (C,); h, w = image size, P = MAX_PEOPLE.
FIELDS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "images": ("u1", ("h", "w", 3)),  # RGB
    "depth_m": ("f2", ("h", "w")),  # along z at pixel centres, 0 = sky
    "instance": ("u1", ("h", "w")),  # 0 background, row + 1 on people
    "K": ("f4", (3, 3)),  # (C, 3, 3), pixels
    "T_world_camera": ("f4", (4, 4)),
    "stamp_s": ("f4", ()),
    "valid": ("?", ("P",)),  # the row is a person of the world
    "head_uv": ("f4", ("P", 2)),  # pixels
    "head_visible": ("?", ("P",)),
    "visible_fraction": ("f4", ("P",)),
    "bbox_px": ("f4", ("P", 4)),  # x, y, width, height
    "joints_camera": ("f4", ("P", 55, 3)),  # metres
    "full_pose": ("f4", ("P", 55, 3)),  # axis-angle in skinning order, root in the camera frame
    "betas": ("f4", ("P", 10)),
    "person_id": ("i4", ("P",)),  # -1 in padding
}


class ClipShard(Mapping[str, NDArray]):
    """One shard: field name -> read-only memory-mapped array (C, T, ...); `K` is (C, 3, 3)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays: dict[str, NDArray] = {}

    def __getitem__(self, name: str) -> NDArray:
        if name not in FIELDS:
            raise KeyError(f"{name}: a shard has the fields {list(FIELDS)}")
        if name not in self._arrays:
            try:
                self._arrays[name] = np.load(self.path / f"{name}.npy", mmap_mode="r")
            except (OSError, ValueError) as error:
                raise SourceError(
                    f"shard {self.path}: field '{name}' cannot be read ({error}); make it again"
                ) from error
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(FIELDS)

    def __len__(self) -> int:
        return len(FIELDS)


def list_shards(folder: str | Path) -> list[Path]:
    """Complete shards of a folder, sorted by name; empty if the folder does not exist."""
    return sorted(p.parent for p in Path(folder).glob("shard_*/shard.json"))


def open_shard(path: str | Path) -> ClipShard:
    """Open a shard for reading.

    Raises:
        SourceError: `path` is no complete shard.
    """
    path = Path(path)
    if not (path / "shard.json").is_file():
        raise SourceError(f"{path} is no shard (no shard.json); shards are made by 'human-scene synthesize'")
    return ClipShard(path)


def clip_seed(seed: int, clip: int) -> int:
    """Seed of the world of one clip; different from the small seeds that evaluations use."""
    return int(np.random.SeedSequence((seed, clip)).generate_state(1, np.uint64)[0])


def render_clip(seed: int, clip: int, frames: int, config: WorldConfig) -> dict[str, NDArray]:
    """All fields of one clip, without the leading clip axis; the frame spacing is drawn per clip."""
    world_seed = clip_seed(seed, clip)
    spacing = float(np.random.default_rng(world_seed).uniform(*FRAME_SPACING_S))
    world = SyntheticWorld(world_seed, dataclasses.replace(config, num_frames=frames, fps=1.0 / spacing))
    sizes: dict[int | str, int] = {"h": config.height, "w": config.width, "P": MAX_PEOPLE}
    out = {}
    for name, (dtype, shape) in FIELDS.items():
        lead = () if name == "K" else (frames,)
        out[name] = np.zeros((*lead, *(sizes[s] if isinstance(s, str) else s for s in shape)), dtype)
    out["K"][:] = world.camera.K
    out["person_id"][:] = -1
    for t in range(frames):
        frame = world.frame(t)
        out["images"][t], out["depth_m"][t], out["instance"][t] = frame.image, frame.depth_m, frame.instance
        out["T_world_camera"][t], out["stamp_s"][t] = frame.T_world_camera, frame.stamp_ns * 1e-9
        for person in frame.people:
            row = (t, person.person_id)
            out["valid"][row] = True
            out["head_uv"][row] = np.nan_to_num(person.head_uv_px, nan=-1e4)
            out["head_visible"][row] = person.head_visible
            out["visible_fraction"][row] = person.visible_fraction
            out["bbox_px"][row] = person.bbox_px
            out["joints_camera"][row] = person.joints_camera
            out["full_pose"][row] = person.parameters.full_pose()
            out["betas"][row] = person.parameters.betas
            out["person_id"][row] = person.person_id
    return out


def write_shard(path: Path, seed: int, clips: range, frames: int, config: WorldConfig) -> None:
    """Render the clips of one shard and move the finished folder to `path`."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        rendered = [render_clip(seed, clip, frames, config) for clip in clips]
        for name in FIELDS:
            np.save(partial / f"{name}.npy", np.stack([clip[name] for clip in rendered]))
        (partial / "shard.json").write_text(
            json.dumps(
                {
                    "seed": seed,
                    "first_clip": clips.start,
                    "clips": len(clips),
                    "frames_per_clip": frames,
                    "width": config.width,
                    "height": config.height,
                }
            )
        )
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@dataclasses.dataclass(frozen=True)
class WriteReport:
    """What `write_shards` did; `cpu_s` sums over all processes."""

    frames: int
    shards: int
    skipped_shards: int
    wall_s: float
    cpu_s: float


def _write_job(job: tuple[Path, int, range, int, WorldConfig]) -> tuple[int, float]:
    start = time.process_time()
    write_shard(*job)
    return len(job[2]) * job[3], time.process_time() - start


def write_shards(
    folder: str | Path,
    seed: int,
    clips: int,
    frames_per_clip: int = 4,
    config: WorldConfig | None = None,
    workers: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> WriteReport:
    """Render `clips` clips into shards; shards that exist already are kept, so an interrupted call resumes.

    Args:
        folder: Where shards go; made if needed.
        seed: Clip k is the world of `clip_seed(seed, k)`, whatever the number of workers.
        clips: Number of clips.
        frames_per_clip: T.
        config: Size and difficulty; `num_frames` and `fps` are set per clip.
        workers: Processes; 1 renders in this one.
        on_progress: Called with the number of frames of each finished shard.

    Raises:
        ConfigError: A count is not positive.
    """
    if clips < 1 or frames_per_clip < 1 or workers < 1:
        raise ConfigError(
            f"clips = {clips}, frames = {frames_per_clip}, workers = {workers}: all must be positive"
        )
    config, folder = config or WorldConfig(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    jobs, skipped = [], 0
    for first in range(0, clips, CLIPS_PER_SHARD):
        numbers = range(first, min(first + CLIPS_PER_SHARD, clips))
        path = folder / f"shard_{seed:08d}_{first:07d}_{len(numbers):03d}"
        if (path / "shard.json").is_file():
            skipped += 1
        else:
            jobs.append((path, seed, numbers, frames_per_clip, config))
    start, frames, cpu_s = time.monotonic(), 0, 0.0
    if workers == 1 or len(jobs) <= 1:
        results: Iterator[tuple[int, float]] = map(_write_job, jobs)
        frames, cpu_s = _gather(results, on_progress)
    else:
        # One thread per process: threads of BLAS and of the software GL would fight over the cores.
        limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LP_NUM_THREADS")
        before = {name: os.environ.get(name) for name in limits}
        os.environ.update(dict.fromkeys(limits, "1"))
        try:
            with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs))) as pool:
                frames, cpu_s = _gather(pool.imap_unordered(_write_job, jobs), on_progress)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
    return WriteReport(frames, len(jobs), skipped, time.monotonic() - start, cpu_s)


def _gather(
    results: Iterator[tuple[int, float]], on_progress: Callable[[int], None] | None
) -> tuple[int, float]:
    frames, cpu_s = 0, 0.0
    for count, seconds in results:
        frames += count
        cpu_s += seconds
        if on_progress is not None:
            on_progress(count)
    return frames, cpu_s
