#!/usr/bin/env python3
"""Make `demo/recording`, which `make demo` plays: a synthetic room, three people, a moving camera.

    ./env.sh python scripts/make_demo_recording.py [OUT]

Truth lies under /gt/ in our own messages; depth is thinned to every fourth pixel of every third frame so that the
whole stays below 5 MB. Another version of the worlds gives another room: commit the result with the change.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_BYTES = 5_000_000


def main() -> int:
    """Render and write; 1 if the recording is too large to ship."""
    sys.path.insert(0, str(REPOSITORY))
    from tqdm import tqdm

    from human_scene_ros.commands.synthesize import write_recording
    from human_scene_ros.synthetic.world import SyntheticWorld, WorldConfig

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", nargs="?", type=Path, default=REPOSITORY / "demo" / "recording")
    parser.add_argument(
        "--seed", type=int, default=276, help="chosen by eye"
    )
    arguments = parser.parse_args()
    config = WorldConfig(
        width=640,
        height=480,
        num_frames=150,
        fps=15.0,
        min_people=3,
        max_people=3,
        min_walkers=2,
        empty_fraction=0.0,
        fov_deg=(62.0, 75.0),
        place="room",
        camera_motion="orbit",
        body_lod=1,
        effects=0.4,
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(total=config.num_frames, unit="frame") as bar:
        write_recording(
            arguments.out,
            SyntheticWorld(arguments.seed, config),
            quality=72,
            depth_step=4,
            depth_every=3,
            overwrite=True,
            on_frame=bar.update,
        )
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(f"{arguments.out}: {size / 1e6:.2f} MB")
    return int(size > LIMIT_BYTES)


if __name__ == "__main__":
    sys.exit(main())
