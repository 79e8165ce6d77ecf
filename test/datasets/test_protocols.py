"""The commands of docs/evaluation.md for published protocols, run on small folders in the layouts of the data sets.

A shell expands loops and variables of the page as a user's would; what it then starts runs in this process, for ten
starts of torch would take minutes.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dataset_folders import save_smpl
from test_datasets_multicam import make_egoexo4d, make_egohumans
from test_datasets_people import make_3dpw, make_emdb, make_rich
from test_datasets_rgbd import make_sintel, make_tum

from human_scene_ros.body.model import OPEN_BODY_PATH
from human_scene_ros.cli import main
from human_scene_ros.commands import evaluate_bag
from human_scene_ros.commands.evaluate_job import EvaluationJob, evaluate_job
from human_scene_ros.datasets import rgbd
from human_scene_ros.runtime import engine

from helpers import REPOSITORY

MODEL = "--preset nano --device cpu --no-pictures"
SINTEL = ("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5", "market_6",
          "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3")
BONN = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")


def page_commands() -> str:
    """The indented lines below "Published protocols", as one script."""
    page = (REPOSITORY / "docs" / "evaluation.md").read_text(encoding="utf-8")
    part = page.split("\n## Published protocols", 1)[1].split("\n## ", 1)[0]
    return "\n".join(line[4:] for line in part.splitlines() if line.startswith("    "))


def expanded(folder: Path) -> list[list[str]]:
    """What a shell in `folder` would start, in order, with MODEL replaced by the shipped weights."""
    script = re.sub(r"^export MODEL=.*$", f'export MODEL="{MODEL}"', page_commands(), flags=re.M)
    tell = f'"{sys.executable}" -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"'
    done = subprocess.run(["bash", "-euc", f"human-scene() {{ {tell}; }}\n{script}"], cwd=folder, capture_output=True,
                          text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def run_here(folder: str, on_frame: Any = lambda: None) -> dict[str, Any]:
    told = json.loads((Path(folder) / "job.json").read_text(encoding="utf-8"))["job"]
    return evaluate_job(Path(folder), EvaluationJob(**told), on_frame)


@pytest.mark.slow
def test_every_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]):
    make_emdb(tmp_path / "EMDB")
    save_smpl(tmp_path / "SMPL", "MALE")
    make_3dpw(tmp_path / "3DPW")
    make_rich(tmp_path / "RICH")
    (tmp_path / "SMPLX").mkdir()
    (tmp_path / "SMPLX" / "SMPLX_MALE.npz").symlink_to(OPEN_BODY_PATH)
    make_tum(tmp_path / f"rgbd_bonn_{BONN[0]}", rgbd.BONN_CAMERA.camera, 32)
    for name in BONN[1:]:
        (tmp_path / f"rgbd_bonn_{name}").symlink_to(f"rgbd_bonn_{BONN[0]}")
    make_tum(tmp_path / "TUM" / "rgbd_dataset_freiburg3_walking_xyz", rgbd.BONN_CAMERA.camera, 4)
    for name in SINTEL:
        make_sintel(tmp_path / "MPI-Sintel", name)
    make_egohumans(tmp_path / "EGOHUMANS")
    make_egoexo4d(tmp_path / "EGOEXO")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate_bag, "run_job", run_here)
    monkeypatch.setattr(engine, "load_network", functools.cache(engine.load_network))  # every job has the same
    commands = expanded(tmp_path)
    assert [c[:2] for c in commands].count(["convert", "dataset"]) >= 10
    evaluated = []
    for command in commands:
        if command[:2] == ["convert", "checkpoint"]:
            assert main(command) == 2  # the one thing that cannot be generated
            assert "human3r_896L.pth" in capsys.readouterr().err
            continue
        assert main(command) == 0, (command, capsys.readouterr().err)
        if command[0] == "evaluate":
            evaluated.append(command[command.index("--out") + 1])
    found = {name: json.loads((tmp_path / name / "metrics.json").read_text()) for name in evaluated}
    names = {name: sorted({s["dataset"] for s in content["sequences"]}) for name, content in found.items()}
    assert names["out/emdb2"] == names["out/emdb1"] == ["emdb1"] and names["out/3dpw"] == ["3dpw"]
    assert [s["counts"]["frames"] for s in found["out/bonn"]["sequences"]] == [2] * 5  # 30 of 32 are left out
    assert len(found["out/sintel"]["sequences"]) == 14
    for name, keys in (("out/emdb2", ("wa_mpjpe_mm", "ate_sim3_m")), ("out/3dpw", ("pa_mpjpe_mm", "head_recall")),
                       ("out/bonn", ("depth_absrel_scale", "rpe_rot_deg")), ("out/tum", ("depth_delta1_scale",)),
                       ("out/sintel", ("depth_absrel_median",)),
                       ("out/egohumans", ("rig_w_mpjpe_m", "rig_s_cca_10pct")), ("out/rich_rig", ("wa_mpjpe_mm",))):
        assert set(keys) <= set(found[name]["totals"]["pooled_frames"]), name
    page = (tmp_path / "report.html").read_text()
    assert "EMDB-1: pose in the camera frame" in page and "measured here" in page
