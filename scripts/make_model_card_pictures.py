#!/usr/bin/env python3
"""Good and bad cases of the shipped network on rendered worlds, for docs/model_card.md.

    ./env.sh python scripts/make_model_card_pictures.py docs/images

Writes nano_good.jpg and nano_bad.jpg: per row the people (true white, estimated orange, an arrow where the chest
points), the estimated depth and the true depth in one colour scale, and what was measured. The worlds are those of
`human-scene evaluate synthetic --seed SEED --frames 10`, their last frame.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

from human_scene_ros.evaluation import metrics
from human_scene_ros.evaluation.depth import depth_errors
from human_scene_ros.evaluation.synthetic import (
    countable_people,
    depth_pairs,
    detections,
    match_heads,
    root_angle_deg,
)
from human_scene_ros.runtime.engine import make_stream
from human_scene_ros.runtime.stream import HumanSceneStream
from human_scene_ros.scene import CameraFrame, SceneEstimate
from human_scene_ros.synthetic.world import SUITES, SyntheticFrame, SyntheticWorld
from human_scene_ros.viewer.evaluation_figures import ESTIMATE_RGB, TRUTH_RGB, depth_example, people_overlay
from human_scene_ros.viewer.overview import Image8, font

CASES = {
    "nano_good": (("rooms", 104, 6), ("rooms", 103, 17), ("rooms", 104, 3), ("rooms", 103, 13)),
    "nano_bad": (("rooms", 103, 14), ("rooms", 104, 14), ("varied", 103, 28), ("rooms", 104, 11)),
}
FRAMES = 10
ARROW_M = 0.5
PANEL_PX, GAP_PX, LINE_PX, MARGIN_PX = 400, 6, 34, 20
INK, SOFT = "#1d2430", "#6b7482"


def main() -> None:
    """Run the network on every case and write the two pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of the pictures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    stream = make_stream()
    for name, cases in CASES.items():
        rows = [row(stream, letter, *case) for letter, case in zip("abcdefgh", cases, strict=False)]
        path = arguments.out / f"{name}.jpg"
        page(rows).save(path, quality=82, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def row(stream: HumanSceneStream, letter: str, suite: str, seed: int, index: int) -> tuple[str, Image8]:
    """Text and panels of one case."""
    config = dataclasses.replace(SUITES[suite], width=320, height=240, num_frames=FRAMES)
    world = SyntheticWorld(seed * 100_003 + index, config)
    stream.reset()
    for k in range(FRAMES):
        truth = world.frame(k)
        estimate = stream.step(CameraFrame(truth.stamp_ns, truth.image, "camera", truth.camera))
    people = people_overlay(truth.image, estimate, truth, PANEL_PX)
    for joints, color in [*((p.joints_camera, TRUTH_RGB) for p in countable_people(truth)),
                          *((b.joints_camera, ESTIMATE_RGB) for b in detections(estimate))]:
        draw_facing(people, truth, np.asarray(joints, np.float64), color)
    depth, low, high = depth_example(truth.image, estimate, truth.depth_m, PANEL_PX)
    text = (f"{letter}  {suite}, seed {seed}, world {index}:  {measured(estimate, truth)}  "
            f"(colours {low:.1f} to {high:.1f} m)")
    return text, np.hstack([people, depth[:, PANEL_PX:]])


def draw_facing(image: Image8, truth: SyntheticFrame, joints: np.ndarray, color: tuple[int, int, int]) -> None:
    """An arrow from the pelvis to where the chest points."""
    ahead = np.cross(joints[1] - joints[2], joints[3] - joints[0])
    ends = np.stack([joints[0], joints[0] + ARROW_M * ahead / np.linalg.norm(ahead)])
    uv = truth.camera.resized(image.shape[1], image.shape[0]).project(ends)
    if np.isfinite(uv).all() and (np.abs(uv) < 4000).all():
        start, end = (tuple(int(round(v)) for v in p) for p in uv)
        cv2.arrowedLine(image, start, end, (20, 24, 32), 6, cv2.LINE_AA, tipLength=0.3)
        cv2.arrowedLine(image, start, end, color, 3, cv2.LINE_AA, tipLength=0.3)


def measured(estimate: SceneEstimate, truth: SyntheticFrame) -> str:
    """The errors of one frame in a line."""
    found, people = detections(estimate), countable_people(truth)
    pairs = [(found[i].joints_camera[:22].astype(np.float64), people[j].joints_camera[:22].astype(np.float64))
             for i, j in match_heads(found, people, truth.camera)]
    parts = [f"{len(pairs)} of {len(people)} people, {len(found) - len(pairs)} false"]
    if pairs:
        pa = [f"{metrics.pa_mpjpe_mm(a, b):.0f}" for a, b in pairs]
        turned = [f"{root_angle_deg(a, b):.0f}" for a, b in pairs]
        away = [f"{100 * abs(np.linalg.norm(a[0]) / np.linalg.norm(b[0]) - 1):.0f}" for a, b in pairs]
        parts += [f"PA-MPJPE {', '.join(pa)} mm", f"turned by {', '.join(turned)} deg",
                  f"distance off {', '.join(away)} %"]
    errors = depth_errors(*depth_pairs(estimate, truth.depth_m), alignment="metric")
    return "; ".join([*parts, f"depth AbsRel {errors.abs_rel:.2f}"])


def page(rows: list[tuple[str, Image8]]) -> Image.Image:
    """All rows below each other, under the names of the columns."""
    height, width = rows[0][1].shape[:2]
    picture = Image.new("RGB", (width + 2 * MARGIN_PX, LINE_PX + len(rows) * (height + 2 * LINE_PX)), "white")
    pen = ImageDraw.Draw(picture)
    for column, title in enumerate(("people: true white, estimated orange", "estimated depth", "true depth")):
        pen.text((MARGIN_PX + column * (PANEL_PX + GAP_PX), 14), title, SOFT, font(17), anchor="lt")
    for index, (text, panels) in enumerate(rows):
        top = LINE_PX + 8 + index * (height + 2 * LINE_PX)
        picture.paste(Image.fromarray(panels), (MARGIN_PX, top))
        pen.text((MARGIN_PX, top + height + 8), text, INK, font(16), anchor="lt")
    return picture


if __name__ == "__main__":
    main()
