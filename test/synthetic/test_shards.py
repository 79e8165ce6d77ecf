"""Shards: what is written is what was rendered, growing folders are safe to read, interrupted calls resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from human_scene_ros.cli import main
from human_scene_ros.errors import ConfigError, SourceError
from human_scene_ros.synthetic import dataset
from human_scene_ros.synthetic.world import WorldConfig

TINY = WorldConfig(width=48, height=32, renderer="numpy", empty_fraction=0.0)


def test_round_trip(tmp_path: Path) -> None:
    report = dataset.write_shards(tmp_path, 3, 2, 2, TINY)
    assert (report.frames, report.shards, report.skipped_shards) == (4, 1, 0)
    [path] = dataset.list_shards(tmp_path)
    shard = dataset.open_shard(path)
    assert set(shard) == set(dataset.FIELDS)
    for clip in range(2):
        expected = dataset.render_clip(3, clip, 2, TINY)
        for name, array in expected.items():
            assert isinstance(shard[name], np.memmap) and not shard[name].flags.writeable
            np.testing.assert_array_equal(shard[name][clip], array, err_msg=name)
    assert shard["images"].shape == (2, 2, 32, 48, 3) and shard["depth_m"].dtype == np.float16
    # The stored truth is consistent by itself: joints project onto the stored head position.
    at = np.argwhere(shard["valid"][:])
    assert len(at) >= 2
    for c, t, p in at:
        head = shard["joints_camera"][c, t, p, 15]
        if head[2] > 0.1:
            uv = shard["K"][c] @ (head / head[2])
            np.testing.assert_allclose(shard["head_uv"][c, t, p], uv[:2], rtol=1e-4, atol=1e-2)
    assert (shard["person_id"][:][~shard["valid"][:]] == -1).all()
    assert (np.diff(shard["stamp_s"], axis=1) > 0.069).all() and (
        np.diff(shard["stamp_s"], axis=1) < 0.301
    ).all()


def test_existing_shards_are_kept_and_partial_ones_are_invisible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "CLIPS_PER_SHARD", 1)
    dataset.write_shards(tmp_path, 0, 1, 1, TINY)
    [first] = dataset.list_shards(tmp_path)
    before = (first / "images.npy").stat().st_mtime_ns
    (tmp_path / ".shard_half").mkdir()
    (tmp_path / "shard_00000000_0000007_001").mkdir()  # no shard.json: the writer has not finished
    report = dataset.write_shards(tmp_path, 0, 2, 1, TINY)
    assert (report.frames, report.shards, report.skipped_shards) == (1, 1, 1)
    assert (first / "images.npy").stat().st_mtime_ns == before
    assert len(dataset.list_shards(tmp_path)) == 2


def test_an_interrupted_shard_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "render_clip", broken)
    with pytest.raises(KeyboardInterrupt):
        dataset.write_shards(tmp_path, 0, 1, 1, TINY)
    assert list(tmp_path.iterdir()) == []


def test_bad_calls_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clips = 0"):
        dataset.write_shards(tmp_path, 0, 0)
    with pytest.raises(SourceError, match="is no shard"):
        dataset.open_shard(tmp_path)
    assert dataset.list_shards(tmp_path / "nowhere") == []


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    dataset.write_shards(tmp_path, 0, 1, 1, TINY)
    [path] = dataset.list_shards(tmp_path)
    (path / "images.npy").write_bytes(b"no array")
    with pytest.raises(SourceError, match="field 'images' cannot be read"):
        dataset.open_shard(path)["images"]


def test_command_prints_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "synthesize",
        str(tmp_path),
        "--seed",
        "5",
        "--clips",
        "1",
        "--frames",
        "2",
        "--size",
        "32x24",
        "--renderer",
        "numpy",
        "--json",
    ]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["frames"] == 2 and result["size"] == "32x24" and result["renderer"] == "numpy"
    assert result["frames_per_cpu_s"] > 0
    assert main([*arguments[:-1], "--size", "32by24"]) == 2
    assert "--size 32by24: expected WIDTHxHEIGHT" in capsys.readouterr().err
