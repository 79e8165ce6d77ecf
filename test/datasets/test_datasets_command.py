"""The command around the converters: choosing, resuming, progress of nothing half done, memory, options."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from dataset_folders import convert, picture, save_image

from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.cli import main
from human_scene_ros.commands.convert import DATASET_NAMES
from human_scene_ros.datasets.registry import DATASETS
from human_scene_ros.datasets.sequence import (
    ONLY_CAMERA,
    ConvertOptions,
    Dataset,
    DatasetFrame,
    Sequence,
    read_image,
    stamp_of_seconds,
    write_sequence,
)
from human_scene_ros.errors import ConfigError, MessageError, SourceError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.sources.bag_reader import BagReader
from human_scene_ros.sources.calibration import Calibration
from human_scene_ros.sources.image_codec import encode_jpeg
from human_scene_ros.sources.message_fields import FrameTruth, TruePerson, truth_fields
from human_scene_ros.sources.reader import open_source

from helpers import REPOSITORY

CAMERA = PinholeCamera(64, 48, 60.0, 60.0, 31.5, 23.5)
NOTHING = Dataset("test", "a test", "none", lambda source, options: {})


def make_scenes(root: Path, scenes: int = 2, frames: int = 3) -> None:
    for k in range(scenes):
        for i in range(frames):
            stem = root / f"seq-{k + 1:02d}" / f"frame-{i:06d}"
            save_image(Path(f"{stem}.color.png"), i, 640, 480)
            save_image(Path(f"{stem}.depth.png"), i)  # an 8-bit image where depth should be
            Path(f"{stem}.pose.txt").write_text("nan " * 16)


def frames_that_fail(count: int):
    for i in range(count):
        truth = FrameTruth(10**9 + i, CAMERA, np.eye(4), ())
        yield DatasetFrame(ONLY_CAMERA, 10**9 + i, picture(i % 5, 64, 48), Calibration(CAMERA), truth)
    raise SourceError("the disk was pulled out")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_images_of_an_interrupted_download_are_named(tmp_path: Path, suffix: str):
    """Decoders fill the lower half with grey and say nothing."""
    path = tmp_path / f"image.{suffix}"
    whole = save_image(path, 1, 640, 480)
    assert len(read_image(path)) in (len(whole), 480)
    for data, complaint in ((b"", "image.* cannot be decoded as an image"), (
            whole[:len(whole) * 2 // 3], "cannot be decoded" if suffix == "bmp" else r"is cut off after \d+ bytes")):
        path.write_bytes(data)
        with pytest.raises(SourceError, match=complaint):
            read_image(path)


def test_every_data_set_is_offered_and_documented():
    assert tuple(DATASETS) == DATASET_NAMES
    page = (REPOSITORY / "docs" / "datasets.md").read_text(encoding="utf-8")
    for name in DATASETS:
        assert f"human-scene convert dataset {name} " in page, name


def test_sequences_are_chosen_kept_and_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    make_scenes(tmp_path / "fire")
    command = ["convert", "dataset", "7scenes", str(tmp_path / "fire"), str(tmp_path / "out")]
    assert main([*command, "--sequence", "fire_seq-02", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["sequences"]
    assert (report["sequence"], report["images"], report["with_truth"]) == ("fire_seq-02", 3, 0)
    assert report["skipped"] is False
    assert main([*command, "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "fire_seq-01: 2 images" in out and "fire_seq-02: was complete already" in out and "do not pass" in out
    assert main([*command, "--limit", "1", "--overwrite", "--json"]) == 0
    with BagReader(tmp_path / "out" / "fire_seq-02") as bag:
        assert bag.topics["/camera/image/compressed"].count == 1
    Path(tmp_path / "fire/seq-02/frame-000001.pose.txt").unlink()
    assert main([*command, "--sequence", "fire_seq-01"]) == 0  # another sequence that is broken does not matter
    assert main([*command, "--sequence", "fire_seq-02"]) == 2
    assert "frame-000001.pose.txt is missing; expected it beside frame-000001.color.png" in capsys.readouterr().err
    assert main([*command, "--sequence", "nobody"]) == 2
    assert "has no sequence nobody; it has fire_seq-01, fire_seq-02" in capsys.readouterr().err


def test_only_complete_recordings_appear(tmp_path: Path):
    sequence = Sequence("walk", 5, lambda: frames_that_fail(5), "a test's", ())
    with pytest.raises(SourceError, match="the disk was pulled out"):
        write_sequence(NOTHING, sequence, tmp_path / "out", ConvertOptions())
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "out" / "walk").mkdir()
    (tmp_path / "out" / "walk" / "thesis.tex").write_text("years of work")
    with pytest.raises(SourceError, match="walk exists and is no recording"):
        write_sequence(NOTHING, sequence, tmp_path / "out", ConvertOptions(), overwrite=True)
    assert (tmp_path / "out" / "walk" / "thesis.tex").exists()


def test_an_old_recording_stays_until_the_new_one_is_complete(tmp_path: Path):
    make_scenes(tmp_path / "fire", 1)
    (folder,) = convert("7scenes", tmp_path / "fire", tmp_path / "out").values()
    before = (folder / "manifest.yaml").read_text()
    sequence = Sequence(folder.name, 5, lambda: frames_that_fail(2), "a test's", ())
    with pytest.raises(SourceError, match="pulled out"):
        write_sequence(NOTHING, sequence, tmp_path / "out", ConvertOptions(), overwrite=True)
    assert (folder / "manifest.yaml").read_text() == before


def test_memory_does_not_grow_with_the_sequence(tmp_path: Path):
    image = encode_jpeg(np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8))

    def peak(frames: int) -> int:
        def some():
            for i in range(frames):
                truth = FrameTruth(10**9 + i, CAMERA, np.eye(4), ())
                yield DatasetFrame(ONLY_CAMERA, 10**9 + i, bytes(bytearray(image)), Calibration(CAMERA), truth)

        tracemalloc.start()
        write_sequence(NOTHING, Sequence(f"n{frames}", frames, some, "", ()), tmp_path, ConvertOptions())
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    few, many = peak(10), peak(50)
    assert many - few < 40 * len(image) / 4  # a quarter of what passed


def test_bad_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ConfigError, match="every = 0"):
        ConvertOptions(every=0)
    assert list(ConvertOptions(every=3, limit=2).kept(range(10))) == [0, 3]
    make_scenes(tmp_path / "fire", 1)
    command = ["convert", "dataset", "7scenes", str(tmp_path / "fire"), str(tmp_path / "out")]
    assert main([*command, "--shards"]) == 2
    assert "only bedlam has" in capsys.readouterr().err
    assert main([*command, "--only-people"]) == 2
    assert "no image is left to write" in capsys.readouterr().err
    assert main(["convert", "dataset", "tum", str(tmp_path / "nothing"), str(tmp_path / "out")]) == 2
    assert "is no folder; expected a sequence of TUM RGB-D" in capsys.readouterr().err


def test_depth_that_is_no_depth_is_refused(tmp_path: Path):
    make_scenes(tmp_path / "fire", 1)
    (tmp_path / "fire/seq-01/frame-000000.pose.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")
    with pytest.raises(SourceError, match=r"holds uint8 \(48, 64, 3\); expected a 16-bit grey depth image"):
        convert("7scenes", tmp_path / "fire", tmp_path / "out")


def test_content_that_only_looks_right_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "takes").mkdir()
    (tmp_path / "takes.json").write_text("[{")
    assert main(["convert", "dataset", "egoexo4d", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "its content is not that of egoexo4d (JSONDecodeError" in capsys.readouterr().err
    make_scenes(tmp_path / "fire", 1)
    (tmp_path / "fire/seq-01/frame-000001.pose.txt").write_text("1 0 0 x")
    assert main(["convert", "dataset", "7scenes", str(tmp_path / "fire"), str(tmp_path / "out")]) == 2
    assert "its content is not that of 7scenes (ValueError: could not convert" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_stamps_are_exact():
    assert stamp_of_seconds("1341846647.734163") == 1_341_846_647_734_163_000
    assert stamp_of_seconds("1.1e0") == 1_100_000_000
    with pytest.raises(SourceError, match="'rgb/1.png' is no time in seconds"):
        stamp_of_seconds("rgb/1.png")


def test_truth_with_joints_alone_comes_back(tmp_path: Path):
    """127 joints of which few are known: NaN with confidence 0, no pelvis, no parameters."""
    joints = np.full((127, 3), np.nan, np.float32)
    joints[[16, 17, 55]] = [[0.2, -0.4, 3.0], [-0.2, -0.4, 3.0], [0.0, -0.6, 2.9]]
    person = TruePerson(4, BodyParameters(), joints, False, float("nan"), np.array([1, 2, 3, 4], np.float32),
                        body_model="", valid_parts=0)
    truth = FrameTruth(10**9, CAMERA, np.eye(4), (person,))

    def one():
        yield DatasetFrame(ONLY_CAMERA, 10**9, picture(0, 64, 48), Calibration(CAMERA), truth)

    write_sequence(NOTHING, Sequence("a", 1, one, "", ()), tmp_path, ConvertOptions())
    with open_source(tmp_path / "a") as source:
        (back,) = source.truth_at(10**9).people
    np.testing.assert_array_equal(back.joints_camera, joints)
    assert (back.person_id, back.valid_parts, back.body_model, back.head_visible) == (4, 0, "", False)
    assert np.isnan(back.visible_fraction)
    body = truth_fields(truth, camera_frame="c", world_frame="w", sequence=0)["bodies"][0]
    assert body["pelvis"]["covariance"][0] == -1 and body["joint_confidence"].sum() == 3
    np.testing.assert_array_equal(np.flatnonzero(body["joint_flags"]), [16, 17, 55])
    np.testing.assert_allclose(body["joint_uv"].reshape(-1, 2)[55], [31.5, 60 * -0.6 / 2.9 + 23.5], rtol=1e-6)
    with pytest.raises(MessageError, match=r"shape \(17, 3\); expected \(55, 3\) or \(127, 3\)"):
        short = TruePerson(0, BodyParameters(), joints[:17], False, 1.0, person.bbox_px)
        truth_fields(FrameTruth(1, CAMERA, np.eye(4), (short,)), camera_frame="c", world_frame="w", sequence=0)
