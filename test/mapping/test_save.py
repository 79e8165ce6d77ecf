"""Saved clouds read back by readers that know nothing of the writer."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from human_scene_ros.errors import ConfigError, ShapeError, SourceError
from human_scene_ros.mapping.save import save_points

POINTS = np.array([[1.5, -2.25, 0.0], [100.0, 0.125, -3.0], [0.1, 0.2, 0.3]], np.float32)
COLORS = np.array([[0, 127, 255], [1, 2, 3], [250, 251, 252]], np.uint8)


def test_ply(tmp_path):
    path = save_points(tmp_path / "map.ply", POINTS, COLORS)
    data = path.read_bytes()
    head, _, body = data.partition(b"end_header\n")
    lines = head.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert "element vertex 3" in lines
    assert [line.split()[1:] for line in lines if line.startswith("property")] == [
        ["float", "x"], ["float", "y"], ["float", "z"], ["uchar", "red"], ["uchar", "green"], ["uchar", "blue"]]
    rows = list(struct.iter_unpack("<fffBBB", body))
    np.testing.assert_array_equal([r[:3] for r in rows], POINTS)
    np.testing.assert_array_equal([r[3:] for r in rows], COLORS)


def test_pcd(tmp_path):
    data = save_points(tmp_path / "map.pcd", POINTS, COLORS).read_bytes()
    head, _, body = data.partition(b"DATA binary\n")
    fields = dict(line.split(" ", 1) for line in head.decode().splitlines()[1:])
    assert fields["FIELDS"] == "x y z rgb" and fields["SIZE"] == "4 4 4 4" and fields["TYPE"] == "F F F F"
    assert fields["POINTS"] == fields["WIDTH"] == "3"
    rows = list(struct.iter_unpack("<fffI", body))
    np.testing.assert_array_equal([r[:3] for r in rows], POINTS)
    np.testing.assert_array_equal([[r[3] >> 16 & 255, r[3] >> 8 & 255, r[3] & 255] for r in rows], COLORS)


def test_npz(tmp_path):
    with np.load(save_points(tmp_path / "map", POINTS, COLORS, "npz")) as data:
        np.testing.assert_array_equal(data["points"], POINTS)
        np.testing.assert_array_equal(data["colors"], COLORS)
    assert (tmp_path / "map.npz").is_file()


@pytest.mark.parametrize("form", ["ply", "pcd", "npz"])
def test_empty_map(tmp_path, form):
    assert save_points(tmp_path / f"map.{form}", POINTS[:0], COLORS[:0]).stat().st_size > 50


def test_a_file_is_replaced_whole_and_nothing_is_left_over(tmp_path):
    path = tmp_path / "map.ply"
    path.write_text("old")
    with pytest.raises(ShapeError, match="points holds 1 value"):
        save_points(path, np.array([[np.nan, 0, 0]]), COLORS[:1])
    assert path.read_text() == "old"
    save_points(path, POINTS, COLORS)
    assert [p.name for p in tmp_path.iterdir()] == ["map.ply"]


def test_errors_say_where_and_what(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot save a map as 'xyz' .*expected one of \['ply', 'pcd', 'npz'\]"):
        save_points(tmp_path / "map.xyz", POINTS, COLORS)
    with pytest.raises(SourceError, match="the folder .*nowhere does not exist"):
        save_points(tmp_path / "nowhere" / "map.ply", POINTS, COLORS)
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(SourceError, match="it is a folder"):
        save_points(tmp_path / "folder.ply", POINTS, COLORS)
