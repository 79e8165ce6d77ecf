"""The worlds that evaluations draw from are what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from human_scene_ros.errors import ConfigError
from human_scene_ros.synthetic import motions
from human_scene_ros.synthetic.world import SUITES, SyntheticWorld, WorldConfig


def test_rooms_are_rooms_with_few_people():
    for seed in range(6):
        world = SyntheticWorld(seed, SUITES["rooms"])
        assert world.place.kind == "room"
        assert len(world.frame(0).people) <= 3


def test_motions_are_drawn_from_the_named_kinds_only():
    rng = np.random.default_rng(0)
    assert {motions.sample(rng, kinds=("sit", "wave")).name for _ in range(40)} == {"sit", "wave"}


def test_an_unknown_motion_is_refused():
    with pytest.raises(ConfigError, match=r"world.motions: \['fly'\] unknown"):
        WorldConfig(motions=("walk", "fly"))
