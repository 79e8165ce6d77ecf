"""BEDLAM folders as training shards: the fields of `synthetic.dataset.FIELDS`, with bodies of SMPL-X.

Images are cut to the aspect of the shards about their centre and shrunk by area; depth and masks keep the nearest
pixel. Masks carry no identity: each goes to the person whose projected joints it covers best. Where more people are
in view than a shard has rows, the nearest keep theirs; pixels of the others are people without a row (255).

Betas are those of SMPL-X, not of the open body: train on such shards with `--body` of an official file, and do not mix
them with synthetic worlds of the open body.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.datasets.bedlam import BedlamFrame, BedlamScene, body_folder, scene_folders, shrunk
from human_scene_ros.datasets.sequence import ConvertOptions
from human_scene_ros.errors import ConfigError, SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.sources.message_fields import TruePerson
from human_scene_ros.synthetic.dataset import CLIPS_PER_SHARD, FIELDS
from human_scene_ros.synthetic.world import MAX_PEOPLE

PERSON_WITHOUT_ROW = 255
FPS = 30.0
HEAD = 15
_FAR_PX = -1e4
Clip = dict[str, NDArray]


def write_bedlam_shards(source: Path, out: Path, options: ConvertOptions, width: int, height: int, frames: int, *,
                        on_progress: Callable[[int], object] = lambda n: None) -> dict[str, Any]:
    """Write every sequence of one or several scenes as clips of `frames` images that follow each other.

    Args:
        source: A scene folder of BEDLAM or a folder of them; depth/ and masks/ are needed.
        out: Folder of shards; complete ones are kept, so an interrupted call goes on.
        options: `body` is the folder of SMPL-X; `every` thins the images, `limit` bounds the clips per sequence.
        width: Of the shards, pixels.
        height: Of the shards, pixels.
        frames: T.
        on_progress: Called with the number of frames of each finished clip.

    Returns:
        clips, shards, skipped_shards.

    Raises:
        ConfigError: People are left out, or a size is not positive.
        SourceError: See `BedlamScene`; or the scene has no depth or masks.
    """
    if not options.people:
        raise ConfigError("shards for training need people; leave out --no-people")
    if min(width, height, frames) < 1:
        raise ConfigError(f"shards of {width}x{height} px and {frames} frames: all must be positive")
    body = body_folder(options)
    report = {"clips": 0, "shards": 0, "skipped_shards": 0}
    out.mkdir(parents=True, exist_ok=True)
    for folder in scene_folders(source):
        scene = BedlamScene(folder, body)
        for part in ("depth", "masks"):
            if not (folder / part).is_dir():
                raise SourceError(f"{folder / part} is missing; shards for training need it (a download of its own)")
        jobs = [(name, clip) for name in scene.sequences for clip in _clips(scene.images(name), frames, options)]
        for first in range(0, len(jobs), CLIPS_PER_SHARD):
            chosen = jobs[first:first + CLIPS_PER_SHARD]
            path = out / f"shard_{folder.name}_{first:07d}_{len(chosen):03d}"
            if (path / "shard.json").is_file():
                report["skipped_shards"] += 1
                continue
            _write_shard(path, (_clip(scene, *job, width, height) for job in chosen), len(chosen), on_progress,
                         {"scene": folder.name, "width": width, "height": height, "frames_per_clip": frames})
            report["shards"] += 1
            report["clips"] += len(chosen)
    return report


def _clips(images: list[Path], frames: int, options: ConvertOptions) -> list[list[Path]]:
    images = images[::options.every]
    clips = [images[i:i + frames] for i in range(0, len(images) - frames + 1, frames)]
    return clips[:options.limit] if options.limit else clips


def _write_shard(path: Path, clips: Iterator[Clip], count: int, on_progress: Callable[[int], object],
                 card: dict[str, Any]) -> None:
    """One clip in memory at a time: each field is a file that grows."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        files: dict[str, np.memmap] = {}
        for number, clip in enumerate(clips):
            for name, values in clip.items():
                if name not in files:
                    files[name] = np.lib.format.open_memmap(partial / f"{name}.npy", "w+", values.dtype,
                                                            (count, *values.shape))
                files[name][number] = values
            on_progress(card["frames_per_clip"])
        for file in files.values():
            file.flush()
        (partial / "shard.json").write_text(json.dumps({"source": "bedlam", "clips": count, **card}))
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _clip(scene: BedlamScene, sequence: str, images: list[Path], width: int, height: int) -> Clip:
    """All fields of one clip; a person keeps the same row in all its frames."""
    sizes: dict[int | str, int] = {"h": height, "w": width, "P": MAX_PEOPLE}
    out = {name: np.zeros((*(() if name == "K" else (len(images),)),
                           *(sizes[s] if isinstance(s, str) else s for s in shape)), dtype)
           for name, (dtype, shape) in FIELDS.items()}
    out["person_id"][:] = -1
    frames = list(scene.frames(sequence, images))
    nearest: dict[int, float] = {}
    for person in (p for frame in frames for p in frame.people):
        z = float(person.joints_camera[0, 2])
        nearest[person.person_id] = min(z, nearest.get(person.person_id, z))
    chosen = sorted(sorted(nearest, key=nearest.__getitem__)[:MAX_PEOPLE])
    for t, frame in enumerate(frames):
        _fill(out, t, scene, frame, {person_id: row for row, person_id in enumerate(chosen)}, width, height)
    out["stamp_s"][:] -= out["stamp_s"][0]
    return out


def _fill(out: Clip, t: int, scene: BedlamScene, frame: BedlamFrame, rows: dict[int, int], width: int,
          height: int) -> None:
    pixels, depth_m = scene.pixels(frame.image), scene.depth(frame.image)
    if depth_m is None or depth_m.shape != pixels.shape[:2]:
        raise SourceError(f"{frame.image} is {pixels.shape[1]}x{pixels.shape[0]} px, its depth has shape "
                          f"{None if depth_m is None else depth_m.shape}; expected the same size")
    left, top, box_width, box_height = _central_box(frame.camera, width, height)
    camera = frame.camera.cropped(left, top, box_width, box_height).resized(width, height)
    window = np.s_[top:top + box_height, left:left + box_width]
    out["images"][t] = shrunk(pixels[window], width, height)
    out["depth_m"][t] = _nearest(depth_m[window], width, height)
    out["T_world_camera"][t], out["stamp_s"][t] = frame.T_world_camera, frame.number / FPS
    if t == 0:
        out["K"][:] = camera.K
    masks = scene.masks(frame.image)
    owner = match_masks(masks, frame.people, frame.camera)
    instance = np.zeros(pixels.shape[:2], np.uint8)
    for mask, person_id in zip(masks, owner, strict=True):
        instance[mask] = rows[person_id] + 1 if person_id in rows else PERSON_WITHOUT_ROW
    out["instance"][t] = _nearest(instance[window], width, height)
    for person in frame.people:
        if person.person_id in rows:
            row = rows[person.person_id]
            _fill_person(out, (t, row), person, camera, out["instance"][t] == row + 1)


def _fill_person(out: Clip, at: tuple[int, int], person: TruePerson, camera: PinholeCamera,
                 mask: NDArray[np.bool_]) -> None:
    head = np.nan_to_num(camera.project(person.joints_camera[HEAD].astype(np.float64)), nan=_FAR_PX)
    column, row = np.rint(head).astype(int)
    inside = 0 <= column < camera.width and 0 <= row < camera.height
    out["valid"][at] = True
    out["head_uv"][at] = head
    # The joint lies behind the skin, so its own pixel is the person's unless something is in front.
    out["head_visible"][at] = inside and bool(mask[max(row - 1, 0):row + 2, max(column - 1, 0):column + 2].any())
    uv = camera.project(person.joints_camera[:22].astype(np.float64))  # without fingers, which would outweigh the body
    with np.errstate(invalid="ignore"):
        seen = ((uv >= 0) & (uv < [camera.width, camera.height])).all(axis=1)
    cells = np.rint(uv[seen]).astype(int).clip(0, [camera.width - 1, camera.height - 1])
    out["visible_fraction"][at] = float(mask[cells[:, 1], cells[:, 0]].sum()) / len(uv)
    if mask.any():
        ys, xs = np.nonzero(mask)
        out["bbox_px"][at] = xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1
    out["joints_camera"][at] = person.joints_camera
    out["full_pose"][at] = person.parameters.full_pose()
    betas = person.parameters.betas[:10]
    out["betas"][at][:len(betas)] = betas
    out["person_id"][at] = person.person_id


def match_masks(masks: list[NDArray[np.bool_]], people: tuple[TruePerson, ...], camera: PinholeCamera) -> list[int]:
    """`person_id` of each mask: one to one, the person with most joints on it first; -1 if nobody is left for it."""
    votes = np.zeros((len(masks), len(people)))
    for j, person in enumerate(people):
        uv = camera.project(person.joints_camera[:22].astype(np.float64))
        with np.errstate(invalid="ignore"):
            uv = uv[((uv >= 0) & (uv < [camera.width - 0.5, camera.height - 0.5])).all(axis=1)]
        cells = np.rint(uv).astype(int).clip(0, [camera.width - 1, camera.height - 1])
        for i, mask in enumerate(masks):
            votes[i, j] = mask[cells[:, 1], cells[:, 0]].sum()
    owner = [-1] * len(masks)
    while votes.size and votes.max() > 0:
        i, j = divmod(int(votes.argmax()), len(people))
        owner[i] = people[j].person_id
        votes[i], votes[:, j] = 0, 0
    return owner


def _central_box(camera: PinholeCamera, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of the largest centred box of the shards' aspect."""
    scale = min(camera.width / width, camera.height / height)
    box_width, box_height = min(round(width * scale), camera.width), min(round(height * scale), camera.height)
    return (camera.width - box_width) // 2, (camera.height - box_height) // 2, box_width, box_height


def _nearest(values: NDArray, width: int, height: int) -> NDArray:
    rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(int)
    return values[rows][:, columns]
