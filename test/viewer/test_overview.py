"""The overview picture: every panel shows what it should, and nothing breaks when there is little to show."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fake_scene import DENSE_CAMERA, IMAGE_CAMERA, fake_frame
from PIL import Image

from human_scene_ros.body.model import load_body_model
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.scene import TrackState
from human_scene_ros.viewer import overview as drawing
from human_scene_ros.viewer.collect import OverviewCollector
from human_scene_ros.viewer.raster import Canvas, shaded_mesh

PANEL = np.array([0xF4, 0xF5, 0xF7])


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Without supersampling the drawing takes a quarter of the time and shows the same things."""
    monkeypatch.setattr(drawing, "_SCALE_3D", 1)


def collect(frames: int = 6, people: int = 2, truth: bool = True) -> drawing.Overview:
    collector = OverviewCollector()
    for k in range(frames):
        image, estimate, true = fake_frame(4 * k, people)
        collector.add(image, estimate, true.T_world_camera if truth else None)
    overview = collector.overview(subtitle="weights: test", facts={"frames": str(frames)})
    assert overview is not None
    return overview


def pixels_near(picture: np.ndarray, color: drawing.Color, tolerance: int = 6) -> int:
    return int((np.abs(picture.astype(int) - np.round(255 * np.array(color))).max(axis=-1) <= tolerance).sum())


def test_the_picture_has_its_size_and_each_panel_has_content(tmp_path):
    drawing.save_overview(tmp_path / "overview.png", collect(), load_body_model())
    picture = np.asarray(Image.open(tmp_path / "overview.png"))
    assert picture.shape == (1080, 1920, 3)
    image, depth, scene = picture[130:500, 60:560], picture[640:1000, 60:560], picture[200:980, 800:1850]
    for name, panel in (("image", image), ("depth", depth), ("scene", scene)):
        assert panel.std() > 20, name
    assert (np.abs(scene.astype(int) - PANEL).max(axis=-1) > 12).mean() > 0.1


def test_people_have_the_same_colour_in_both_panels():
    overview = collect()
    model = load_body_model()
    everybody = drawing.draw_overview(overview, model)
    nobody = drawing.draw_overview(dataclasses.replace(
        overview, trails={}, moment=dataclasses.replace(overview.moment, people=())), model)
    for left, right in ((44, 650), (760, 1880)):
        changed = np.abs(everybody[120:1000, left:right].astype(int) - nobody[120:1000, left:right]).max(axis=-1) > 25
        assert changed.mean() > 0.01


def test_the_true_path_is_drawn_and_named_only_where_there_is_one():
    with_truth, without = collect(truth=True), collect(truth=False)
    assert with_truth.true_path is not None and without.true_path is None
    np.testing.assert_allclose(with_truth.true_path, with_truth.path[:, :3, 3], atol=1e-9)
    shown = [pixels_near(drawing.draw_overview(o, load_body_model())[:, 700:], drawing._TRUTH_COLOR)
             for o in (with_truth, without)]
    assert shown[0] > shown[1]


@pytest.mark.parametrize("case", ["nobody", "one frame", "no points", "no depth", "portrait", "person without mesh"])
def test_sparse_runs_draw_without_error(case):
    overview = collect(frames=1 if case == "one frame" else 3, people=0 if case == "nobody" else 2)
    moment = overview.moment
    if case == "no points":
        overview = dataclasses.replace(overview, points_world=np.zeros((0, 3)), colors=np.zeros((0, 3), np.uint8))
    elif case == "no depth":
        overview = dataclasses.replace(overview, moment=dataclasses.replace(
            moment, depth_m=np.full((8, 10), np.nan, np.float32)))
    elif case == "portrait":
        overview = dataclasses.replace(overview, moment=dataclasses.replace(
            moment, image=np.ascontiguousarray(np.swapaxes(moment.image, 0, 1)),
            camera=PinholeCamera(240, 320, 280.0, 280.0, 119.5, 159.5)))
    elif case == "person without mesh":
        overview = dataclasses.replace(overview, moment=dataclasses.replace(
            moment, people=tuple(dataclasses.replace(p, parameters=None) for p in moment.people)))
    assert drawing.draw_overview(overview, load_body_model()).shape == (1080, 1920, 3)


def test_portrait_panels_stand_side_by_side_and_use_the_height():
    overview = collect(people=0)
    moment = overview.moment
    red = np.zeros((1600, 900, 3), np.uint8)
    red[..., 0] = 255
    picture = drawing.draw_overview(dataclasses.replace(overview, moment=dataclasses.replace(
        moment, image=red, camera=PinholeCamera(900, 1600, 900.0, 900.0, 449.5, 799.5))), load_body_model())
    rows, columns = np.nonzero((picture == (255, 0, 0)).all(axis=-1))
    assert np.ptp(rows) > 600
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(16 / 9, rel=0.01)


def test_nothing_added_gives_nothing_to_draw():
    assert OverviewCollector().overview(subtitle="", facts={}) is None


def test_the_longest_segment_is_shown_and_segments_are_not_mixed():
    collector = OverviewCollector()
    for k in range(7):
        image, estimate, _ = fake_frame(k)
        collector.add(image, dataclasses.replace(estimate, segment=int(k >= 3)))
    overview = collector.overview(subtitle="", facts={})
    assert overview is not None and len(overview.path) == 4


def test_the_frame_with_most_to_see_is_chosen():
    collector = OverviewCollector()
    for k, people in enumerate((0, 2, 1)):
        image, estimate, _ = fake_frame(k, people)
        collector.add(image, estimate)
    overview = collector.overview(subtitle="", facts={})
    assert overview is not None and len(overview.moment.people) == 2


def test_ended_tracks_are_not_drawn_and_extrapolated_ones_are_marked():
    image, estimate, _ = fake_frame()
    states = (TrackState.LOST, TrackState.PREDICTED)
    bodies = tuple(dataclasses.replace(b, track_state=s) for b, s in zip(estimate.bodies, states, strict=True))
    moment = drawing.Moment.from_estimate(image, dataclasses.replace(estimate, bodies=bodies))
    assert [p.seen for p in moment.people] == [False]


def test_points_stay_bounded(monkeypatch):
    from human_scene_ros.viewer import collect as module

    monkeypatch.setattr(module, "_MAX_POINTS", 9000)
    assert len(collect(frames=8).points_world) <= 9000


def test_colours_of_people_differ_and_repeat_lighter():
    colors = {drawing.track_color(i) for i in range(24)}
    assert len(colors) == 24


# --- the renderer

CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (2.5, 3.5)])
CUBE_FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                       [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])


def test_a_cube_is_drawn_where_it_projects_with_its_front_depth():
    _, depth = shaded_mesh(CUBE, CUBE_FACES, (1.0, 0.5, 0.2), IMAGE_CAMERA)
    inside = np.isfinite(depth)
    rows, columns = np.nonzero(inside)
    half = 0.5 / 2.5 * 280.0
    assert columns.min() == pytest.approx(159.5 - half, abs=1.5)
    assert rows.max() == pytest.approx(119.5 + half, abs=1.5)
    np.testing.assert_allclose(depth[inside], 2.5)


def test_nearer_things_hide_farther_ones_in_any_order():
    point, wall = np.array([[0.0, 0.0, 2.0]]), CUBE
    for order in ("point first", "mesh first"):
        canvas = Canvas(IMAGE_CAMERA)
        steps = [lambda c: c.points(point, (0.0, 0.0, 1.0), 3), lambda c: c.mesh(wall, CUBE_FACES, (1.0, 0.0, 0.0))]
        for step in steps if order == "point first" else reversed(steps):
            step(canvas)
        assert tuple(canvas.to_image()[119, 159]) == (0, 0, 255), order


def test_lines_are_clipped_at_the_eye_and_hidden_behind_surfaces():
    canvas = Canvas(IMAGE_CAMERA)
    canvas.mesh(CUBE, CUBE_FACES, (1.0, 0.0, 0.0))
    before = canvas.to_image()
    canvas.line(np.array([[-0.2, 0.0, 5.0], [0.2, 0.0, 5.0]]), (0.0, 0.0, 1.0))
    np.testing.assert_array_equal(canvas.to_image(), before)
    canvas.line(np.array([[0.1, 0.0, -1.0], [0.1, 0.0, 2.0]]), (0.0, 0.0, 1.0))
    assert pixels_near(canvas.to_image(), (0.0, 0.0, 1.0)) > 20


def test_a_mesh_behind_the_eye_is_not_drawn():
    _, depth = shaded_mesh(CUBE - [0.0, 0.0, 10.0], CUBE_FACES, (1.0, 1.0, 1.0), DENSE_CAMERA)
    assert not np.isfinite(depth).any()
