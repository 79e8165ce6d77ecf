"""`human-scene check`: it must see every kind of damage."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from tiny_network import OFFICIAL, images, make, with_people

from human_scene_ros.cli import main
from human_scene_ros.commands.check import check_folder
from human_scene_ros.errors import SourceError
from human_scene_ros.model.preprocess import to_tensor

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "network"
SIZE = (64, 96)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network folder written by this code: one exact stream of three frames with its images."""
    config = OFFICIAL
    network = make(config)
    names = ("enc_embed_dim", "enc_depth", "enc_num_heads", "dec_embed_dim", "dec_depth", "dec_num_heads",
             "state_dec_num_heads", "state_size", "local_mem_size")
    frames = ((images(1, *SIZE)[0].permute(1, 2, 0).numpy() * 0.5 + 0.5) * 255).astype(np.uint8)
    frames = np.stack([np.roll(frames, 16 * i, axis=1) for i in range(3)])
    with_people(network, to_tensor(frames[0]), 2)
    values = {name: getattr(config, name) for name in names} | {
        "mhmr_img_res": 112, "dino": {"embed_dim": 20, "depth": 2, "num_heads": 2, "img_size": 84},
        "dpt": {"feature_dim": 8, "last_dim": 4, "layer_dims": [4, 6, 8, 10]},
        "detection_threshold": network.config.detection_threshold,
        "streams": {"walk": {"H": 64, "W": 96, "n": 3, "ttt": True}}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    save_file({k: v.clone() for k, v in network.state_dict().items()}, tmp_path / "weights.safetensors")
    for suffix, half in (("", True), ("_exactrope", False)):
        network.config = dataclasses.replace(network.config, use_ttt3r=True, rope_fp16=half)
        arrays, state = {}, None
        for i, frame in enumerate(frames):
            output, state = network.step(to_tensor(frame), state, update=i != 1, collect_stages=True)
            if half:
                arrays |= {f"f{i}.in.image_u8": frame, f"f{i}.in.update": np.array([i != 1]),
                           f"f{i}.in.reset": np.array([False])}
            arrays |= {f"f{i}.out.{name}": getattr(output, name).numpy()
                       for name in ("pts3d_in_self_view", "camera_pose", "smpl_id", "smpl_scores", "smpl_rotmat")}
            arrays |= {f"f{i}.stage.{name}": output.stages[name].numpy() for name in ("state_after", "human_pos")}
        np.savez(tmp_path / f"stream_walk{suffix}.npz", **arrays)
    return tmp_path


def edit(path: Path, **changes: object) -> None:
    """Rewrite an npz with some arrays changed by functions, or removed by None; keys with '__' for '.'."""
    with np.load(path) as stored:
        arrays = dict(stored)
    for key, change in changes.items():
        name = key.replace("__", ".")
        if change is None:
            del arrays[name]
        else:
            arrays[name] = change(arrays[name]) if callable(change) else change
    np.savez(path, **arrays)


def test_a_right_folder_passes_and_json_is_one_object(folder: Path, capsys):
    assert main(["check", str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is True
    assert report["failures"] == report["skipped"] == []
    assert set(report["worst"]) == {"out.pts3d_in_self_view", "out.camera_pose", "out.smpl_id", "out.smpl_scores",
                                    "out.smpl_rotmat", "stage.state_after", "stage.human_pos"}
    assert max(report["worst"].values()) <= 1e-5
    limits = {f: {a["limit"] for a in arrays.values()} for f, arrays in report["files"].items()}
    assert limits == {"stream_walk.npz": {0.0, 2e-4}, "stream_walk_exactrope.npz": {0.0, 1e-5}}


@pytest.mark.parametrize(("file", "changes", "array"), [
    ("stream_walk.npz", {"f2__out__pts3d_in_self_view": lambda x: x * 1.001}, "out.pts3d_in_self_view"),
    ("stream_walk_exactrope.npz", {"f2__out__camera_pose": lambda x: x + 1e-4}, "out.camera_pose"),
    ("stream_walk.npz", {"f0__out__smpl_id": lambda x: x + 1}, "out.smpl_id"),
    ("stream_walk.npz", {"f0__stage__human_pos": lambda x: x[:, ::-1] + 1}, "stage.human_pos"),
    ("stream_walk.npz", {"f0__out__smpl_rotmat": lambda x: x[:, :1]}, "out.smpl_rotmat"),
    ("stream_walk.npz", {"f1__out__smpl_scores": lambda x: np.where(x == x.max(), 0, x)}, "out.smpl_scores"),
    ("stream_walk.npz", {"f1__stage__state_after": lambda x: np.full_like(x, np.nan)}, "stage.state_after"),
    ("stream_walk.npz", {"f1__stage__unheard_of": np.zeros(3)}, "stage.unheard_of"),
    ("stream_walk.npz", {"f1__in__update": np.array([True])}, "stage.state_after"),
])
def test_damage_is_found_and_named(folder: Path, capsys, file: str, changes: dict, array: str):
    edit(folder / file, **changes)
    assert main(["check", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert any(f.startswith(f"{file}: {array}:") for f in report["failures"])
    worst = report["worst"][array]
    assert worst is None or worst > 1e-5


def test_what_cannot_be_compared_is_a_failure_not_a_gap(folder: Path, capsys):
    edit(folder / "stream_walk.npz", f0__in__image_u8=None)
    (folder / "stream_other_exactrope.npz").write_bytes((folder / "stream_walk_exactrope.npz").read_bytes())
    shutil.copy(GOLDEN / "focal.npz", folder)
    edit(folder / "focal.npz", land_pts=None)
    whole = (GOLDEN / "world_chain.npz").read_bytes()
    (folder / "world_chain.npz").write_bytes(whole[:len(whole) // 2])
    report = check_folder(folder)
    assert not report["passed"]
    text = "\n".join(report["failures"])
    assert "stream_walk.npz does not have the layout of its name" in text
    assert "stream_other.npz is missing; it holds the images of stream 'other'" in text
    assert "focal.npz does not have the layout of its name" in text
    assert "world_chain.npz does not have the layout of its name" in text


def test_wrong_weights_and_configurations_are_failures(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"state_size": 12}))
    assert "does not fit network" in check_folder(folder)["failures"][0]
    (folder / "config.json").write_text(json.dumps(config | {"rope_base": 10.0}))
    assert "asks for {'rope_base': 10.0}; this network has {'rope_base': 100.0}" in check_folder(folder)["failures"][0]
    (folder / "config.json").unlink()
    assert "config.json cannot be read" in check_folder(folder)["failures"][0]


def test_unknown_files_are_named_and_an_unknown_folder_is_an_error(tmp_path: Path, capsys):
    np.savez(tmp_path / "something.npz", a=np.zeros(1))
    with pytest.raises(SourceError, match=r"holds no fixture file that can be compared \(found \['something.npz'\]\)"):
        check_folder(tmp_path)
    shutil.copy(GOLDEN / "world_chain.npz", tmp_path)
    report = check_folder(tmp_path)
    assert report["passed"]
    assert report["skipped"] == ["something.npz"]
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_the_table_names_files_and_verdicts(tmp_path: Path, capsys):
    shutil.copy(GOLDEN / "preprocess_and_units.npz", tmp_path)
    assert main(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "preprocess_and_units.npz: 30 of 30 arrays within their limits" in out
    assert out.endswith("passed\n")
    edit(tmp_path / "preprocess_and_units.npz", case0__output_u8=lambda x: x ^ 1)
    assert main(["check", str(tmp_path), "--all"]) == 1
    out = capsys.readouterr().out
    assert "FAILED preprocess_and_units.npz: case0.output_u8" in out
    assert "case4.output_u8" in out
