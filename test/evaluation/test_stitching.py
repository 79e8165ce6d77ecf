"""Pieces of a reconstruction put together by their cameras: restored exactly, and what cannot be says why."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from human_scene_ros.errors import ShapeError
from human_scene_ros.evaluation.alignment import Alignment
from human_scene_ros.evaluation.stitching import align_poses, moved_pose, stitch
from human_scene_ros.geometry.transform import make_transform

RNG = np.random.default_rng(3)
POSES = {k: make_transform(Rotation.from_rotvec(RNG.normal(size=3)).as_matrix(), RNG.normal(scale=4.0, size=3))
         for k in range(40)}
ROOM = {f"cam{k}": T for k, T in list(POSES.items())[:4]}


def similarity(seed: int) -> Alignment:
    rng = np.random.default_rng(seed)
    return Alignment(Rotation.random(random_state=seed).as_matrix(), rng.normal(scale=10.0, size=3),
                     np.array(rng.uniform(0.2, 5.0)), np.array(False))


def moved(poses: dict, by: Alignment) -> dict:
    return {name: moved_pose(by, T) for name, T in poses.items()}


def inverted(a: Alignment) -> Alignment:
    return Alignment(a.R.T, -a.R.T @ a.t / a.s, 1.0 / a.s, a.degenerate)


def assert_same_poses(ours: dict, true: dict, atol: float = 1e-11) -> None:
    assert ours.keys() == true.keys()
    for name, T in true.items():
        np.testing.assert_allclose(ours[name], T, atol=atol)


def put_together(pieces: list[dict]) -> dict:
    return {name: T for piece, found in zip(pieces, stitch(pieces), strict=True)
            for name, T in moved(piece, found.alignment).items()}


@pytest.mark.parametrize("overlap", [2, 5])
def test_a_trajectory_cut_into_pieces_is_restored(overlap):
    begins = range(0, 40 - overlap, 10 - overlap)
    pieces = [{k: POSES[k] for k in range(begin, min(begin + 10, 40))} for begin in begins]
    cut = [pieces[0], *(moved(piece, similarity(k)) for k, piece in enumerate(pieces[1:]))]
    assert [s.status for s in stitch(cut)] == ["ok"] * len(cut)
    assert {s.shared for s in stitch(cut)[1:]} == {overlap}
    assert_same_poses(put_together(cut), POSES, 1e-9)


def test_cameras_that_stand_need_no_frames_in_common():
    everything = [similarity(k) for k in range(4)]
    pieces = [ROOM, *(moved(ROOM, by) for by in everything)]
    for found, by in zip(stitch(pieces)[1:], everything, strict=True):
        back = inverted(by)
        assert found.status == "ok" and found.shared == 4 and found.rms == pytest.approx(0.0, abs=1e-10)
        for ours, true in ((found.alignment.R, back.R), (found.alignment.t, back.t), (found.alignment.s, back.s)):
            np.testing.assert_allclose(ours, true, atol=1e-10)


@pytest.mark.parametrize("names", [("cam0", "cam3"), ("a", "b", "c")], ids=["two cameras", "cameras on a line"])
def test_orientations_settle_what_centres_leave_open(names):
    rig = {name: POSES[k].copy() for k, name in enumerate(names)}
    for k, T in enumerate(rig.values()):
        T[:3, 3] = [1.5 * k, 0.0, 2.0]
    assert_same_poses(put_together([rig, moved(rig, similarity(8))]), rig)


def test_the_world_of_a_piece_does_not_matter():
    noisy = [{name: make_transform(T[:3, :3], T[:3, 3] + RNG.normal(scale=0.05, size=3)) for name, T in ROOM.items()}
             for _ in range(4)]
    elsewhere = [noisy[0], *(moved(piece, similarity(20 + k)) for k, piece in enumerate(noisy[1:]))]
    there = [moved(piece, similarity(30)) for piece in noisy]
    for a, b, c in zip(stitch(noisy), stitch(elsewhere), stitch(there), strict=True):
        assert a.rms == pytest.approx(b.rms, abs=1e-10) and c.rms == pytest.approx(similarity(30).s * a.rms, abs=1e-10)
    assert all(0.01 < found.rms < 0.2 for found in stitch(noisy)[1:])
    assert_same_poses(put_together(elsewhere), put_together(noisy), 1e-9)
    assert_same_poses(put_together(there), moved(put_together(noisy), similarity(30)), 1e-9)


def test_noise_comes_out_as_it_is():
    """One camera of four is 40 cm off along x; the others are right: the fit is that of least squares."""
    off = {**ROOM, "cam2": make_transform(ROOM["cam2"][:3, :3], ROOM["cam2"][:3, 3] + [0.4, 0.0, 0.0])}
    found = stitch([ROOM, off])[1]
    ours = np.array([T[:3, 3] for T in off.values()])
    true = np.array([T[:3, 3] for T in ROOM.values()])
    best = np.linalg.norm(found.alignment.apply(ours) - true)
    assert found.rms == pytest.approx(best / 2.0)
    np.testing.assert_allclose(found.alignment.R, np.eye(3), atol=1e-12)
    for s, shift in ((1e-3, 0.0), (-1e-3, 0.0), (0.0, 1e-3), (0.0, -1e-3)):
        other = (found.alignment.s + s) * ours + found.alignment.t + shift
        assert np.linalg.norm(other - true) > best


def test_what_cannot_be_stitched_says_why_and_stops_nobody():
    one = {"cam1": ROOM["cam1"]}
    standing = dict.fromkeys(("t0", "t1", "t2"), POSES[5])
    assert [s.status for s in stitch([one])] == ["no match"]
    assert [s.status for s in stitch([standing, standing])] == ["degenerate"] * 2
    assert [s.status for s in stitch([])] == []
    pieces = [one, {}, ROOM, one, moved(ROOM, similarity(1)), {"cam9": POSES[9], "cam8": POSES[8]}]
    found = stitch(pieces)
    assert [s.status for s in found] == ["no match", "no match", "ok", "no match", "ok", "no match"]
    assert np.isnan(found[3].alignment.apply(np.zeros((2, 3)))).all() and np.isnan(found[3].rms)
    assert_same_poses(moved(pieces[4], found[4].alignment), ROOM)


def test_cameras_that_contradict_each_other_are_degenerate():
    """Two cameras that look as before but have changed places: no scale above zero fits."""
    a, b = ROOM["cam0"], ROOM["cam1"]
    swapped = {"cam0": make_transform(a[:3, :3], b[:3, 3]), "cam1": make_transform(b[:3, :3], a[:3, 3])}
    assert [s.status for s in stitch([{"cam0": a, "cam1": b}, swapped])] == ["ok", "degenerate"]


def test_a_camera_that_is_gone_for_a_while_counts_where_it_was_last():
    without = {name: T for name, T in ROOM.items() if name != "cam3"}
    pair = {name: ROOM[name] for name in ("cam2", "cam3")}
    pieces = [ROOM, moved(without, similarity(5)), moved(pair, similarity(6))]
    assert [s.shared for s in stitch(pieces)] == [4, 3, 2]
    assert_same_poses(put_together(pieces), ROOM)


def test_poses_of_other_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"poses have shapes \(2, 4, 4\) and \(3, 4, 4\)"):
        align_poses(np.zeros((2, 4, 4)), np.zeros((3, 4, 4)))
