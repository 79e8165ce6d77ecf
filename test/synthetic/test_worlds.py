"""Truth of synthetic worlds: joints, depth, masks and poses agree with each other and with analytic geometry."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools

import numpy as np
import pytest
from scipy.spatial import cKDTree

from human_scene_ros.body import model as body
from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert
from human_scene_ros.synthetic import motions, renderer
from human_scene_ros.synthetic.camera_paths import look_rotation
from human_scene_ros.synthetic.people import open_body
from human_scene_ros.synthetic.places import make_place
from human_scene_ros.synthetic.shapes import Drawing, Lighting, MaterialTable, MeshBuilder, primitive
from human_scene_ros.synthetic.world import SyntheticFrame, SyntheticWorld, WorldConfig

SMALL = WorldConfig(width=160, height=112, num_frames=4, fps=5.0, empty_fraction=0.0, effects=0.0)


def gl_works() -> bool:
    try:
        from human_scene_ros.synthetic.render_gl import GlRenderer

        GlRenderer(16, 16).release()
    except Exception:
        return False
    return True


RENDERERS = [
    pytest.param("gl", marks=pytest.mark.skipif(not gl_works(), reason="no OpenGL context on this machine")),
    "numpy",
]


@functools.cache
def world(seed: int, name: str) -> SyntheticWorld:
    return SyntheticWorld(seed, dataclasses.replace(SMALL, renderer=name))


def frames(name: str, seeds: range) -> list[SyntheticFrame]:
    return [world(seed, name).frame(2) for seed in seeds]


@pytest.mark.parametrize("seed", range(4))
def test_parameters_give_the_true_joints_and_their_projection(seed: int) -> None:
    frame = world(seed, "numpy").frame(1)
    assert frame.people
    for person in frame.people:
        np.testing.assert_allclose(
            body.joints(open_body(), person.parameters), person.joints_camera, atol=2e-4
        )
        head = person.joints_camera[15].astype(np.float64)
        if head[2] > 0:
            uv = frame.camera.K @ (head / head[2])
            np.testing.assert_allclose(person.head_uv_px, uv[:2], atol=2e-3)


@pytest.mark.parametrize("name", RENDERERS)
def test_depth_equals_ray_casting_on_boxes(name: str) -> None:
    rng, builder, table = np.random.default_rng(3), MeshBuilder(), MaterialTable()
    material = table.surface(np.full((3, 3), 0.5, np.float32), 0)
    builder.add("box", (0, 0, -0.5), (30, 30, 1), material)
    for _ in range(12):
        builder.add(
            "box",
            rng.uniform((1, -3, 0), (8, 3, 2.5)),
            rng.uniform(0.2, 1.5, 3),
            material,
            yaw=rng.uniform(0, 3),
        )
    camera = PinholeCamera(96, 64, 60.0, 63.0, 44.0, 35.0)
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = look_rotation(np.array([0.1]), np.array([-0.2]), np.array([0.05]))[0]
    T_world_camera[:3, 3] = (-1.0, 0.3, 1.6)
    one = np.ones(3, np.float32)
    light = Lighting(
        one / np.sqrt(3).astype(np.float32), one, one, one, np.zeros((2, 6), np.float32), one, 0.0, 0.0, 0.0
    )
    drawing = Drawing(
        builder.build(), (), table.array(), light, np.zeros((0, 5), np.float32), invert(T_world_camera)
    )
    draw = renderer.make_renderer(camera.width, camera.height, True, name)
    _, depth_m, instance = draw.render(drawing, camera)

    rays = camera.rays().reshape(-1, 3).astype(np.float64) @ T_world_camera[:3, :3].T
    best = np.full(len(rays), np.inf)
    for rotation, center, size in zip(*builder.solids("box"), strict=True):
        origin, direction = rotation.T @ (T_world_camera[:3, 3] - center), rays @ rotation
        with np.errstate(divide="ignore"):
            a, b = (-size / 2 - origin) / direction, (size / 2 - origin) / direction
        near, far = np.minimum(a, b).max(1), np.maximum(a, b).min(1)
        best = np.where((near < far) & (near > 0), np.minimum(best, near), best)
    expected = np.where(np.isfinite(best), best, 0.0).reshape(camera.height, camera.width)
    wrong = np.abs(depth_m - expected) > 1e-3 * np.maximum(expected, 1.0)
    # Only rays within rounding of an edge may choose the other side.
    assert wrong.mean() < 0.002, f"{int(wrong.sum())} of {wrong.size} pixels differ"
    assert (expected > 0).mean() > 0.5 and (expected == 0).any() and not instance.any()


@pytest.mark.parametrize("name", RENDERERS)
def test_masks_lie_on_the_bodies(name: str) -> None:
    checked = 0
    for frame in frames(name, range(8)):
        points = frame.camera.unproject_depth(frame.depth_m)
        for person in frame.people:
            mask = frame.instance == person.person_id + 1
            if mask.sum() < 200 or person.joints_camera[:22, 2].min() < 0.3:
                continue
            vertices, _ = body.vertices(open_body(), person.parameters, lod=1)
            distance = cKDTree(vertices).query(points[mask])[0]
            # Clothes are up to 5 cm thick; bags, hats and skirts (seldom, so the median) reach farther.
            assert np.median(distance) < 0.09, (frame.stamp_ns, person.person_id)
            uv = frame.camera.project(vertices)
            inside = mask[
                np.clip(np.rint(uv[:, 1]), 0, 111).astype(int), np.clip(np.rint(uv[:, 0]), 0, 159).astype(int)
            ]
            if person.visible_fraction > 0.9:
                assert inside.mean() > 0.85
            checked += 1
    assert checked >= 6


@pytest.mark.parametrize("name", RENDERERS)
def test_static_points_stay_where_they_are_while_the_camera_moves(name: str) -> None:
    config = dataclasses.replace(
        SMALL, renderer=name, camera_motion="orbit", place="room", num_frames=8, fps=2.0
    )
    moved = 0
    for seed in range(3):
        w = SyntheticWorld(seed, config)
        a, b = w.frame(0), w.frame(5)
        moved += not np.allclose(a.T_world_camera, b.T_world_camera, atol=1e-3)
        static = (a.instance == 0) & (a.depth_m > 0)
        points_world = apply(a.T_world_camera, a.camera.unproject_depth(a.depth_m)[static].astype(np.float64))
        points_b = apply(invert(b.T_world_camera), points_world)
        uv = b.camera.project(points_b)
        with np.errstate(invalid="ignore"):
            seen = ((uv > 0) & (uv < [b.camera.width - 1, b.camera.height - 1])).all(1)
        u, v = np.rint(uv[seen]).astype(int).T
        background = b.instance[v, u] == 0
        ratio = b.depth_m[v, u][background] / points_b[seen, 2][background]
        assert np.abs(np.median(ratio) - 1) < 2e-3
        assert (np.abs(ratio - 1) < 0.03).mean() > 0.7  # the rest is hidden from one of the two views
        assert (ratio < 1.05).mean() > 0.95  # nothing can be seen through a surface
    assert moved >= 2


def test_visible_heads_are_drawn_where_they_project() -> None:
    visible = hidden = 0
    for seed in range(14):
        frame = world(seed, "numpy").frame(2)
        for person in frame.people:
            u, v = person.head_uv_px
            in_image = bool(np.isfinite(u) and -0.5 < u < 159.5 and -0.5 < v < 111.5)
            if not person.head_visible:
                hidden += 1
                continue
            visible += 1
            assert in_image
            around = frame.instance[max(int(v) - 3, 0) : int(v) + 5, max(int(u) - 3, 0) : int(u) + 5]
            assert (around == person.person_id + 1).any()
            assert person.visible_fraction > 0
    assert visible >= 8 and hidden >= 3


def test_people_stand_on_the_floor_inside_the_place_and_are_of_human_size() -> None:
    heights = []
    for seed in range(12):
        w = world(seed, "numpy")
        frame = w.frame(0)
        for person in frame.people:
            vertices, _ = body.vertices(open_body(), person.parameters, lod=2)
            lowest = apply(frame.T_world_camera, vertices.astype(np.float64))[:, 2].min()
            assert -0.06 < lowest < 0.65  # shoes and clothes are thicker than the skin; a bed lifts
            pelvis = apply(frame.T_world_camera, person.joints_camera[0].astype(np.float64))
            assert (np.abs(pelvis[:2]) <= w.place.half).all()
            heights.append(body.standing_height(open_body(), person.parameters.betas))
        camera = frame.T_world_camera[:3, 3]
        assert 0.1 < camera[2] < w.place.ceiling
        if w.place.kind != "outdoor":
            assert (np.abs(camera[:2]) < w.place.half).all()
    assert min(heights) > 0.8 and max(heights) < 2.35 and 1.5 < np.median(heights) < 1.95


def test_a_seed_gives_one_world_in_any_order() -> None:
    config = dataclasses.replace(SMALL, renderer="numpy", effects=1.0)
    first, second = SyntheticWorld(11, config), SyntheticWorld(11, config)
    a = [first.frame(i) for i in range(3)]
    b = [second.frame(i) for i in range(3)]
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.image, y.image)
        np.testing.assert_array_equal(x.depth_m, y.depth_m)
        np.testing.assert_array_equal(x.T_world_camera, y.T_world_camera)
    np.testing.assert_array_equal(first.frame(1).image, a[1].image)
    third = SyntheticWorld(11, config)
    np.testing.assert_array_equal(third.frame(2).depth_m, a[2].depth_m)
    np.testing.assert_array_equal(third.frame(2).image, a[2].image)
    assert (SyntheticWorld(12, config).frame(0).image != a[0].image).any()


@pytest.mark.skipif(not gl_works(), reason="no OpenGL context on this machine")
def test_both_renderers_agree() -> None:
    for seed in range(6):
        a, b = world(seed, "gl").frame(2), world(seed, "numpy").frame(2)
        assert (a.instance != b.instance).mean() < 1e-3
        assert (np.abs(a.depth_m - b.depth_m) > 0.01 * np.maximum(a.depth_m, 0.1)).mean() < 2e-3
        assert np.abs(a.image.astype(float) - b.image).mean() < 4.0
        for p, q in zip(a.people, b.people, strict=True):
            assert p.head_visible == q.head_visible
            assert p.visible_fraction == pytest.approx(q.visible_fraction, abs=0.02)


@pytest.mark.skipif(not gl_works(), reason="no OpenGL context on this machine")
def test_opengl_renderers_of_several_sizes_and_threads_do_not_mix() -> None:
    configs = [dataclasses.replace(SMALL, renderer="gl", width=w, height=h, smooth=s)
               for w, h, s in ((160, 112, True), (96, 64, True), (96, 64, False))]
    worlds = [SyntheticWorld(5, c) for c in configs]
    first = [w.frame(0) for w in worlds]
    again = [w.frame(0) for w in worlds]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        elsewhere = [pool.submit(w.frame, 0).result() for w in worlds]
    for a, b, c in zip(first, again, elsewhere, strict=True):
        for other in (b, c):
            np.testing.assert_array_equal(a.image, other.image)
            np.testing.assert_array_equal(a.instance, other.instance)
    np.testing.assert_array_equal(first[1].instance, first[2].instance)  # labels are never smoothed
    reference = SyntheticWorld(5, dataclasses.replace(configs[0], renderer="numpy")).frame(0)
    assert (first[0].instance != reference.instance).mean() < 1e-3


def test_without_opengl_worlds_are_drawn_in_numpy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from human_scene_ros.synthetic import render_gl

    def refuse(*_: object) -> None:
        raise RuntimeError("cannot open display")

    monkeypatch.setattr(render_gl, "GlRenderer", refuse)
    renderer.make_renderer.cache_clear()
    try:
        frame = SyntheticWorld(0, dataclasses.replace(SMALL, renderer="auto", num_frames=1)).frame(0)
        assert frame.image.shape == (112, 160, 3) and frame.image.std() > 1
        assert "drawn in numpy" in caplog.text and "cannot open display" in caplog.text
        with pytest.raises(ConfigError, match=r"no OpenGL context can be made \(cannot open display\)"):
            renderer.make_renderer(64, 48, True, "gl")
    finally:
        renderer.make_renderer.cache_clear()


def test_empty_worlds_and_number_of_people() -> None:
    empty = SyntheticWorld(1, dataclasses.replace(SMALL, renderer="numpy", empty_fraction=1.0)).frame(0)
    assert empty.people == () and not empty.instance.any()
    crowd = SyntheticWorld(1, dataclasses.replace(SMALL, renderer="numpy", min_people=4)).frame(0)
    assert 2 <= len(crowd.people) <= 6  # a full room may not take all of them


def test_solids_are_closed_and_wound_outwards() -> None:
    for name in ("box", "cylinder", "cone", "frustum", "sphere", "dome", "vase", "torus"):
        shape = primitive(name)
        corners = shape.points[shape.faces].astype(np.float64)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert (np.linalg.norm(normal, axis=1) > 1e-9).sum() > 10
        # Divergence theorem: the signed volume of a closed surface wound outwards is positive.
        volume = np.einsum("ni,ni->n", corners[:, 0], normal).sum() / 6
        assert 0.02 < volume <= 1.0 + 1e-6, name
        np.testing.assert_allclose(normal.sum(0), 0, atol=1e-4)


@pytest.mark.parametrize(
    "maker",
    [
        motions.walk,
        motions.stand,
        motions.turn,
        motions.sit,
        motions.reach,
        motions.wave,
        motions.bend,
        motions.carry,
        motions.lie,
        motions.free,
    ],
)
def test_motions_are_smooth_and_knees_bend_one_way(maker: object) -> None:
    motion = maker(np.random.default_rng(4))  # type: ignore[operator]
    t = np.arange(0, 3, 1 / 60)
    angles = motion.angles(t)
    assert angles.shape == (len(t), 55, 3) and np.isfinite(angles).all()
    assert np.abs(np.diff(angles, axis=0)).max() < 0.25  # radians per 1/60 s
    assert angles[:, [motions.L_KNEE, motions.R_KNEE], 0].min() > -0.12


def test_every_kind_of_place_can_be_made() -> None:
    for kind in ("room", "corridor", "hall", "outdoor"):
        assert make_place(np.random.default_rng(0), kind).kind == kind


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"width": 8}, "8x112 px"),
        ({"num_frames": 0}, "num_frames = 0"),
        ({"max_people": 9}, "max_people = 9"),
        ({"camera_motion": "fly"}, "'fly'"),
        ({"place": "moon"}, "'moon'"),
        ({"fov_deg": (5.0, 20.0)}, "fov_deg"),
    ],
)
def test_bad_configurations_name_the_value(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        WorldConfig(**values)  # type: ignore[arg-type]


def test_frames_outside_the_world_are_refused() -> None:
    with pytest.raises(IndexError, match="frame 4: this world has 4 frames"):
        world(0, "numpy").frame(4)
