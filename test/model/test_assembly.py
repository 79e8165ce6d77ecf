"""World chain, resets at intervals, focal length, identities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_network import NANO, OFFICIAL, images, make

from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.model.assembly import WorldChain, estimate_focal, pose_matrix, step_in_chunks
from human_scene_ros.model.tracking import TrackBank, assign_ids, log_transport

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "network"


def test_the_chain_over_resets_matches_golden():
    """Tolerance: float32 inputs of the reference."""
    golden = np.load(GOLDEN / "world_chain.npz")
    chain, world = WorldChain(), []
    for pose, reset, keep in zip(golden["pose_encoding"], golden["reset"], golden["keep"], strict=True):
        if keep:
            T_world_camera, chain = chain.advance(pose_matrix(pose), bool(reset))
            world.append(T_world_camera)
    np.testing.assert_allclose(world, golden["cam2world"], atol=1e-5)


def test_a_reset_frame_is_fed_again_and_begins_the_next_chunk():
    network = make(OFFICIAL)
    frames = images(5, 64, 96)
    state, chain, world = None, WorldChain(), []
    for frame in frames:
        _, T_world_camera, state, chain = step_in_chunks(network, frame[None], state, chain, reset_interval=2)
        world.append(T_world_camera)

    expected, by_hand, base = [], None, np.eye(4)
    for i, frame in enumerate(frames):
        reset = i % 2 == 1
        output, by_hand = network.step(frame[None], by_hand, reset=reset)
        expected.append(base @ pose_matrix(output.camera_pose[0].numpy()))
        if reset:
            base = expected[-1]
            _, by_hand = network.step(frame[None], by_hand)
    np.testing.assert_allclose(world, expected, atol=1e-12)
    torch.testing.assert_close(state.tokens, by_hand.tokens, rtol=0, atol=0)
    assert chain.frames == 5


def test_never_resetting_equals_plain_steps_and_networks_without_pose_head_have_no_pose():
    network, frames = make(OFFICIAL), images(3, 64, 96)
    state = plain = None
    chain = WorldChain()
    for frame in frames:
        output, T_world_camera, state, chain = step_in_chunks(network, frame[None], state, chain)
        same, plain = network.step(frame[None], plain)
        np.testing.assert_allclose(T_world_camera, pose_matrix(same.camera_pose[0].numpy()))
    torch.testing.assert_close(state.tokens, plain.tokens, rtol=0, atol=0)
    _, nothing, _, _ = step_in_chunks(make(NANO), frames[:1], None, WorldChain(), reset_interval=1)
    assert nothing is None
    with pytest.raises(ConfigError, match="reset_interval = -1"):
        step_in_chunks(network, frames[:1], None, WorldChain(), reset_interval=-1)


@pytest.mark.parametrize("name", ["land", "port"])
def test_focal_matches_golden(name: str):
    golden = np.load(GOLDEN / "focal.npz")
    focal = estimate_focal(torch.from_numpy(golden[f"{name}_pts"][0]))
    np.testing.assert_allclose(focal, golden[f"{name}_focal"][0], rtol=1e-5)


def test_focal_of_an_exact_pointmap_is_exact_also_with_outliers_and_holes():
    camera = PinholeCamera(64, 48, 70.0, 70.0, 32.0, 24.0)
    rng = np.random.default_rng(0)
    points = camera.unproject_depth(rng.uniform(1, 4, (48, 64)))
    assert estimate_focal(torch.from_numpy(points)) == pytest.approx(70.0, rel=1e-5)
    points[::7, ::5] *= rng.uniform(0.5, 2.0, points[::7, ::5].shape)  # some wrong along other rays
    points[0, 0] = 0.0
    points[1, 1] = np.nan
    assert estimate_focal(torch.from_numpy(points)) == pytest.approx(70.0, rel=0.03)
    assert estimate_focal(torch.zeros(48, 64, 3)) == 0.0


def test_transport_is_symmetric_in_its_sides():
    scores = np.random.default_rng(0).normal(-3, 2, (3, 5))
    np.testing.assert_allclose(log_transport(scores, iterations=200), log_transport(scores.T, iterations=200).T,
                               atol=1e-6)


def people(*places: float) -> np.ndarray:
    """Descriptors of people far apart from each other."""
    return np.array([[40.0 * p, 0.0, 1.0] for p in places], np.float32)


def test_people_keep_their_numbers_leave_and_return():
    bank = TrackBank.empty(3)
    ids, bank = assign_ids(bank, people(1, 2), cap=10)
    assert ids.tolist() == [0, 1]
    ids, bank = assign_ids(bank, people(2, 3), cap=10)
    assert ids.tolist() == [1, 2]
    ids, same = assign_ids(bank, people(), cap=10)
    assert ids.tolist() == []
    assert same is bank
    ids, bank = assign_ids(bank, people(3, 1), cap=10)
    assert ids.tolist() == [2, 0], "number 0 comes back"
    assert bank.ids.tolist() == [2, 0, 1]


def test_a_full_bank_forgets_who_was_away_longest_and_never_reuses_numbers():
    bank = TrackBank.empty(3)
    for place in range(1, 6):
        ids, bank = assign_ids(bank, people(place), cap=3)
        assert ids.tolist() == [place - 1]
        assert len(bank.ids) <= 3
    ids, bank = assign_ids(bank, people(1), cap=3)
    assert ids.tolist() == [5], "number 0 is forgotten; its place gets a new number"
    ids, bank = assign_ids(bank, people(5), cap=3)
    assert ids.tolist() == [4]
