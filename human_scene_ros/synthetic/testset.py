"""The synthetic test set: recordings with fixed seeds that training never uses, by what they are difficult in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
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


def _sequences(name: str, seeds: Iterable[int], config: WorldConfig, cameras: int = 1) -> tuple[SuiteSequence, ...]:
    return tuple(SuiteSequence(f"{name}_{k}", seed, config, cameras) for k, seed in enumerate(seeds))


TEST_SET: dict[str, tuple[SuiteSequence, ...]] = {
    "indoor": _sequences("indoor", range(910_001, 910_005), _config("indoor")),
    "outdoor": _sequences("outdoor", range(920_001, 920_004), _config("outdoor")),
    # The first from 930001 on that keep three people in view all along; in most others the camera sees one or two.
    "crowd": _sequences("crowd", (930_005, 930_010), _config("crowd")),
    "multicamera": _sequences("multicamera", [940_001], _config("indoor", min_people=2, min_walkers=1), 4),
    "long": _sequences("long", [950_001], _config("indoor", num_frames=3000, min_people=2, min_walkers=1,
                                                  camera_motion="handheld")),
}
"""Suite -> its recordings. A changed seed or configuration is another test set: its numbers start anew."""
