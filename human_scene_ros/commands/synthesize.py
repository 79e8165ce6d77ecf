"""`human-scene synthesize OUT`: render synthetic worlds with exact truth, as training shards or as a recording."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from human_scene_ros.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from human_scene_ros.sources.message_fields import FrameTruth
    from human_scene_ros.synthetic.world import SyntheticFrame, SyntheticWorld

CAMERA_TOPIC, CAMERA_FRAME, WORLD_FRAME = "/camera/image", "camera_optical", "gt_world"
RECORDING_START_NS = 1_000_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("out", type=Path, help="folder of shards, or of the recording with --bag")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default 0)")
    parser.add_argument(
        "--clips", type=int, default=64, help="clips to render; existing shards are kept (default 64)"
    )
    parser.add_argument(
        "--frames", type=int, help="frames per clip (default 4), or of the recording (default 150)"
    )
    parser.add_argument("--size", default=None, help="WIDTHxHEIGHT (default 160x112; recording 640x480)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    parser.add_argument(
        "--renderer",
        choices=("auto", "gl", "numpy"),
        default="auto",
        help="OpenGL without a window, or numpy (default: OpenGL where it works)",
    )
    parser.add_argument(
        "--bag", action="store_true", help="write the world of --seed as a rosbag2 recording instead"
    )
    parser.add_argument(
        "--cameras", type=int, default=0, help="with --bag: so many fixed cameras in one room (up to 8)"
    )
    parser.add_argument(
        "--outage", default="", metavar="CAMERA:FROM:TO", help="with --cameras: one is silent, e.g. 3:4:7.5 (seconds)"
    )
    parser.add_argument(
        "--people", type=int, default=3, help="with --cameras: people in the room (default 3)"
    )
    parser.add_argument(
        "--fps", type=float, default=15.0, help="frames per second of the recording (default 15)"
    )
    parser.add_argument(
        "--suite", default="", metavar="NAME", help="write the recordings of the test set: indoor, outdoor, crowd, "
        "multicamera, long or all; what is there already stays"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def parse_size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT -> (width, height); ConfigError otherwise."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise ConfigError(f"--size {text}: expected WIDTHxHEIGHT such as 160x112")
    return int(match[1]), int(match[2])


def run(arguments: argparse.Namespace) -> int:
    """Render what was asked for and print the throughput."""
    if arguments.cameras and not arguments.bag:
        raise ConfigError("--cameras makes a recording: add --bag")
    write = _write_rig if arguments.cameras else _write_recording if arguments.bag else _write_clips
    if arguments.suite:
        from human_scene_ros.commands.synthesize_suite import write_suites as write
    result = write(arguments)
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"{result['frames']} frames of {result['size']} in {result['wall_s']:.1f} s "
            f"({result['frames_per_cpu_s']:.1f} frames per CPU second, {result['renderer']}): {arguments.out}"
        )
    return 0


def _write_clips(arguments: argparse.Namespace) -> dict[str, object]:
    from tqdm import tqdm

    from human_scene_ros.synthetic.dataset import write_shards
    from human_scene_ros.synthetic.world import WorldConfig

    width, height = parse_size(arguments.size or "160x112")
    frames = 4 if arguments.frames is None else arguments.frames
    config = WorldConfig(width=width, height=height, renderer=arguments.renderer)
    with tqdm(total=arguments.clips * frames, unit="frame", disable=arguments.json) as bar:
        report = write_shards(
            arguments.out, arguments.seed, arguments.clips, frames, config, arguments.workers, bar.update
        )
    return {
        "frames": report.frames,
        "shards": report.shards,
        "skipped_shards": report.skipped_shards,
        "size": f"{width}x{height}",
        "wall_s": report.wall_s,
        "cpu_s": report.cpu_s,
        "frames_per_cpu_s": report.frames / max(report.cpu_s, 1e-9),
        "renderer": _renderer_name(config),
    }


def _renderer_name(config: object) -> str:
    from human_scene_ros.synthetic.renderer import make_renderer
    from human_scene_ros.synthetic.world import WorldConfig

    assert isinstance(config, WorldConfig)
    return make_renderer(config.width, config.height, config.smooth, config.renderer).name


def _write_recording(arguments: argparse.Namespace) -> dict[str, object]:
    import time

    from tqdm import tqdm

    from human_scene_ros.synthetic.world import SyntheticWorld, WorldConfig

    width, height = parse_size(arguments.size or "640x480")
    frames = 150 if arguments.frames is None else arguments.frames
    config = WorldConfig(
        width=width,
        height=height,
        num_frames=frames,
        fps=arguments.fps,
        body_lod=1,
        empty_fraction=0.0,
        renderer=arguments.renderer,
    )
    world = SyntheticWorld(arguments.seed, config)
    start, cpu = time.monotonic(), time.process_time()
    with tqdm(total=frames, unit="frame", disable=arguments.json) as bar:
        write_recording(arguments.out, world, on_frame=bar.update)
    cpu_s = time.process_time() - cpu
    return {
        "frames": frames,
        "size": f"{width}x{height}",
        "wall_s": time.monotonic() - start,
        "cpu_s": cpu_s,
        "frames_per_cpu_s": frames / max(cpu_s, 1e-9),
        "renderer": _renderer_name(config),
    }


def _write_rig(arguments: argparse.Namespace) -> dict[str, object]:
    import time

    from tqdm import tqdm

    from human_scene_ros.commands.synthesize_rig import Outage, write_rig_recording
    from human_scene_ros.synthetic.world import WorldConfig

    width, height = parse_size(arguments.size or "320x240")
    frames = 120 if arguments.frames is None else arguments.frames
    outage = None
    if arguments.outage:
        match = re.fullmatch(r"(\d+):([\d.]+):([\d.]+)", arguments.outage)
        if not match:
            raise ConfigError(f"--outage {arguments.outage}: expected CAMERA:FROM:TO such as 3:4:7.5")
        outage = Outage(int(match[1]), float(match[2]), float(match[3]))
    config = WorldConfig(
        width=width,
        height=height,
        num_frames=frames,
        fps=arguments.fps,
        min_people=arguments.people,
        max_people=arguments.people,
        min_walkers=arguments.people,
        empty_fraction=0.0,
        fov_deg=(80.0, 80.0),
        place="room",
        body_lod=1,
        effects=0.4,
        renderer=arguments.renderer,
    )
    start, cpu = time.monotonic(), time.process_time()
    with tqdm(total=frames, unit="moment", disable=arguments.json) as bar:
        write_rig_recording(
            arguments.out, arguments.seed, config, arguments.cameras, outage=outage, on_frame=bar.update
        )
    cpu_s = time.process_time() - cpu
    return {
        "frames": frames * arguments.cameras,
        "size": f"{width}x{height}",
        "wall_s": time.monotonic() - start,
        "cpu_s": cpu_s,
        "frames_per_cpu_s": frames * arguments.cameras / max(cpu_s, 1e-9),
        "renderer": _renderer_name(config),
    }


def write_recording(
    folder: Path,
    world: SyntheticWorld,
    *,
    quality: int = 90,
    depth_step: int = 1,
    depth_every: int = 1,
    start_ns: int = RECORDING_START_NS,
    overwrite: bool = False,
    on_frame: Callable[[], object] = lambda: None,
) -> None:
    """Write a whole world as a rosbag2 recording: /camera/image/compressed, camera_info, /tf, truth under /gt/.

    Args:
        folder: The rosbag2 folder to make.
        world: What to record.
        quality: Of the JPEG images.
        depth_step: Keep every n-th pixel of the true depth in both directions (from its first half step on).
        depth_every: Keep the depth of every n-th frame.
        start_ns: Stamp of the first frame; zero stamps mean "no time" to ROS.
        overwrite: Replace a recording that is there already.
        on_frame: Called after each frame.

    Raises:
        SourceError: The folder cannot be made.
    """
    from human_scene_ros.sources import message_fields as fields_of
    from human_scene_ros.sources.bag_writer import SceneBagWriter

    with SceneBagWriter(folder, overwrite=overwrite, compress=True) as writer:
        for index in range(len(world)):
            frame = world.frame(index)
            stamp_ns = start_ns + frame.stamp_ns
            half = depth_step // 2
            depth_m = frame.depth_m[half::depth_step, half::depth_step] if index % depth_every == 0 else None
            truth = truth_of(frame, stamp_ns, depth_m)
            writer.write_camera(
                CAMERA_TOPIC, frame.image, frame.camera, stamp_ns, CAMERA_FRAME, quality=quality
            )
            # Frames of their own: the camera frame belongs to whoever estimates its pose.
            writer.write(
                "/tf",
                fields_of.TF_MESSAGE,
                fields_of.transforms_fields(
                    [(stamp_ns, WORLD_FRAME, f"gt_{CAMERA_FRAME}", frame.T_world_camera)]
                ),
                stamp_ns,
            )
            writer.write_truth(truth, camera_frame=CAMERA_FRAME, world_frame=WORLD_FRAME)
            on_frame()


def truth_of(frame: SyntheticFrame, stamp_ns: int, depth_m: NDArray[np.float32] | None) -> FrameTruth:
    """The truth of a rendered frame as recordings hold it; people behind the camera have no place in it."""
    from human_scene_ros.sources.message_fields import FrameTruth, TruePerson

    people = tuple(
        TruePerson(p.person_id, p.parameters, p.joints_camera, p.head_visible, p.visible_fraction, p.bbox_px)
        for p in frame.people if p.joints_camera[:, 2].min() > 0.05)
    return FrameTruth(stamp_ns, frame.camera, frame.T_world_camera, people, depth_m)
