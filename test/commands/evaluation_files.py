"""Small recordings with truth, and metrics.json of them, for tests of evaluation and report."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import yaml
from fake_scene import fake_frame

from human_scene_ros.commands import evaluate_results
from human_scene_ros.sources import message_fields as m
from human_scene_ros.sources.bag_writer import MANIFEST, SceneBagWriter

START_NS = 1_000_000_000


def write_truth(folder: Path, frames: int, *, camera: str = "", dataset: str = "") -> Path:
    """A recording of the fake scene with truth; `camera` names one of several."""
    with SceneBagWriter(folder) as bag:
        for name in ([camera, "cam2"] if camera else [""]):
            for k in range(frames):
                image, _, truth = fake_frame(k)
                stamped = m.FrameTruth(START_NS + truth.stamp_ns, truth.camera, truth.T_world_camera, truth.people,
                                       truth.depth_m)
                bag.write_camera(f"/{name or 'camera'}/image_raw", image, truth.camera, stamped.stamp_ns, "optical")
                bag.write_truth(stamped, camera_frame="optical", camera=name)
    if dataset:
        (folder / MANIFEST).write_text(yaml.safe_dump({"dataset": dataset}))
    return folder


def write_results(folder: Path, frames: int, *, error_m: float = 0.05, drop: tuple[int, ...] = ()) -> Path:
    """What the nodes would have published for `write_truth`, with a known error and without some frames."""
    with SceneBagWriter(folder) as bag:
        for k in range(frames):
            if k in drop:
                continue
            _, estimate, _ = fake_frame(k, error_m=error_m)
            stamp_ns = START_NS + estimate.stamp_ns
            fields = m.body_array_fields(estimate, m.BodyDescription(), camera_frame="optical", camera_name="camera",
                                         sequence=k, world_frame="map", latency_s=0.02 + 0.001 * k)
            fields["header"] = m.header_fields(stamp_ns, "optical")
            bag.write("/human_scene/bodies", m.BODY_ARRAY, fields, stamp_ns)
            bag.write("/human_scene/depth/image", m.IMAGE, m.depth_image_fields(
                stamp_ns, "optical", estimate.points_camera[..., 2]), stamp_ns)
            bag.write("/human_scene/depth/camera_info", m.CAMERA_INFO, m.camera_info_fields(
                stamp_ns, "optical", estimate.dense_camera), stamp_ns)
    return folder


def results_arguments(file: Path, truth: Path, out: Path, **changes: Any) -> types.SimpleNamespace:
    """Arguments of `evaluate results`."""
    values = {"file": file, "truth": truth, "out": out, "name": "", "image": "", "node": "/human_scene",
              "matching": "heads", "chunk": 100, "rig": False, "people": "/people",
              "extrinsics": "/extrinsics", "max_stamp_difference": 0.01, "json": True}
    return types.SimpleNamespace(**{**values, **changes})


def evaluated(folder: Path, frames: int = 12, *, dataset: str = "", drop: tuple[int, ...] = (),
              name: str = "") -> Path:
    """metrics.json of a small evaluation in `folder`."""
    truth = write_truth(folder / "truth", frames, dataset=dataset)
    results = write_results(folder / "results", frames, drop=drop)
    evaluate_results.evaluate_results(
        results_arguments(results, truth, folder / "out", name=name))  # type: ignore[arg-type]
    return folder / "out" / "metrics.json"
