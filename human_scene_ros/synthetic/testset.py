"""The synthetic test set: recordings with fixed seeds that training never uses, by what they are difficult in."""

from __future__ import annotations

import dataclasses
from typing import Any

from human_scene_ros.synthetic.world import SUITES, WorldConfig


@dataclasses.dataclass(frozen=True)
class SuiteSequence:
    """One recording of the test set.

    Args:
        name: Folder of the recording.
        seed: Of its world.
        config: Of its world.
        cameras: 1: the world's own moving camera; more: so many fixed ones (`room_rig`).
    """

    name: str
    seed: int
    config: WorldConfig
    cameras: int = 1


def _config(suite: str, **values: Any) -> WorldConfig:
    return dataclasses.replace(SUITES[suite], width=320, height=240, fps=15.0, **{"num_frames": 60, **values})


def _sequences(name: str, first_seed: int, count: int, config: WorldConfig, cameras: int = 1) -> tuple[
        SuiteSequence, ...]:
    return tuple(SuiteSequence(f"{name}_{k}", first_seed + k, config, cameras) for k in range(count))


TEST_SET: dict[str, tuple[SuiteSequence, ...]] = {
    "indoor": _sequences("indoor", 910_001, 4, _config("indoor")),
    "outdoor": _sequences("outdoor", 920_001, 3, _config("outdoor")),
    "crowd": _sequences("crowd", 930_001, 2, _config("crowd")),
    "multicamera": _sequences("multicamera", 940_001, 1, _config("indoor", min_people=2, min_walkers=1), 4),
    "long": _sequences("long", 950_001, 1, _config("indoor", num_frames=3000, min_people=2, min_walkers=1,
                                                   camera_motion="handheld")),
}
"""Suite -> its recordings. A changed seed or configuration is another test set: its numbers start anew."""
