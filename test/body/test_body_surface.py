"""Bodies against depth: visible vertices, alignment along the ray, depth of a head; exact and on rendered people."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from human_scene_ros.body import surface
from human_scene_ros.body.model import body_mesh, load_body_model, vertices
from human_scene_ros.body.surface import SurfaceStatus

K = np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1.0]])
RAY = np.array([0.0, 0.0, 1.0])
MODEL = load_body_model()


def ellipsoid(n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Points on an upright ellipsoid 4 m away and their outward normals."""
    d = np.random.default_rng(4).normal(size=(n, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    size = np.array([0.25, 0.8, 0.2])
    return d * size + [0.0, 0.0, 4.0], d / size


def test_the_side_turned_to_the_camera_is_visible():
    v, normals = ellipsoid()
    visible = surface.visible_vertices(v, normals)
    assert (v[visible, 2] < 4.02).all() and visible.sum() > 0.3 * len(v)


def test_normals_of_a_tetrahedron_point_outwards_with_the_areas_around():
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    expected = [[-1, -1, -1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]  # each the sum of three faces; all four sum to nothing
    np.testing.assert_allclose(surface.vertex_normals(corners, faces), expected, atol=1e-12)


@pytest.mark.parametrize("shift", [-0.3, -0.25, -0.1, 0.12, 0.15, 0.3])
def test_a_body_at_the_wrong_depth_moves_to_its_points(shift: float):
    v, normals = ellipsoid()
    front = v[surface.visible_vertices(v, normals)]
    result = surface.align_to_surface(front, front + shift * RAY, 2.0 * RAY)
    assert result.status is SurfaceStatus.OK and result.shift_m == pytest.approx(shift, abs=0.02)
    assert result.chamfer_after_m < 0.4 * result.chamfer_before_m


def test_the_shift_is_bounded():
    v, normals = ellipsoid()
    front = v[surface.visible_vertices(v, normals)]
    assert surface.align_to_surface(front, front + 0.7 * RAY, RAY).shift_m == 0.4


def test_alignment_refuses_too_little_and_what_gains_nothing():
    front = ellipsoid(1200)[0]
    front = front[front[:, 2] < 3.98]
    assert surface.align_to_surface(front, front[:79], RAY).status is SurfaceStatus.TOO_FEW_POINTS
    assert surface.align_to_surface(front[:59], front, RAY).status is SurfaceStatus.TOO_FEW_VERTICES
    assert surface.align_to_surface(front[:60], front[:80], RAY).status not in (
        SurfaceStatus.TOO_FEW_POINTS, SurfaceStatus.TOO_FEW_VERTICES)
    same = surface.align_to_surface(front, front, RAY)
    assert same.shift_m == 0.0 and same.status is SurfaceStatus.NO_GAIN
    unknown = np.where(np.arange(len(front))[:, None] < 79, front, np.nan)
    assert surface.align_to_surface(front, unknown, RAY).status is SurfaceStatus.TOO_FEW_POINTS


def test_head_from_depth_is_behind_the_surface_on_the_ray():
    depth = np.full((480, 640), 3.0)
    depth[:, :300] = np.nan
    head, measured = surface.head_from_depth(depth, K, np.array([400.0, 100.0]))
    assert measured and head == pytest.approx(3.1 * np.array([80 / 600, -140 / 600, 1.0]))
    assert surface.head_from_depth(depth, K, np.array([400.0, 100.0]), residual_m=0.2)[0][2] == pytest.approx(3.2)
    assert surface.head_from_depth(depth, K, np.array([400.0, 100.0]), residual_m=-0.6)[0][2] == pytest.approx(3.1)
    head, measured = surface.head_from_depth(depth, K, np.array([100.0, 100.0]), network_depth_m=2.0)
    assert not measured and head[2] == 2.0
    for nowhere in ([-90.0, 9000.0], [np.nan, 100.0], [1e300, 0.0]):
        assert np.isnan(surface.head_from_depth(depth, K, np.array(nowhere))[0]).all()
    assert not surface.head_from_depth(depth, K, np.array([400.0, 100.0]), mask=np.zeros(depth.shape, bool))[1]


def test_four_readings_in_ten_are_a_depth_and_fewer_are_none():
    depth, at = np.zeros((9, 9)), np.array([4.0, 4.0])
    patch = depth[2:7, 2:7]
    patch.flat[:9] = 2.0
    assert np.isnan(surface.surface_depth(depth, at))
    patch.flat[9] = 4.0
    assert surface.surface_depth(depth, at) == 2.0
    mask = np.zeros((9, 9), bool)
    mask[2:4, 2:7] = True  # of the person's own ten pixels all have one
    assert surface.surface_depth(depth, at, mask) == 2.0
    mask[2, 2:7] = False
    assert surface.surface_depth(depth, at, mask) == 2.0, "the five readings of the second row"
    mask[3, 2] = False
    assert np.isnan(surface.surface_depth(depth, at, mask)), "fewer than five pixels"


def test_the_true_body_of_a_rendered_person_returns_to_the_rendered_depth():
    """Dressed people of a rendered room: moved off along the ray, they come back to within their clothes."""
    from human_scene_ros.synthetic.world import SyntheticWorld, WorldConfig

    mesh, errors_m = body_mesh(MODEL, 1), []
    for seed in (3, 5, 8):
        frame = SyntheticWorld(seed, WorldConfig(width=160, height=120, num_frames=2, place="room", max_people=3,
                                                 empty_fraction=0.0, effects=0.0, renderer="numpy")).frame(1)
        points = frame.camera.unproject_depth(frame.depth_m)
        for person in frame.people:
            inside = cv2.erode((frame.instance == person.person_id + 1).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            if person.visible_fraction < 0.3 or inside.sum() < 200:
                continue
            head = person.joints_camera[15].astype(np.float64)
            ray = head / np.linalg.norm(head)
            for off_m in (-0.25, 0.25):
                moved = vertices(MODEL, person.parameters, 1)[0] + off_m * ray
                seen = moved[surface.visible_vertices(moved, surface.vertex_normals(moved, mesh.faces), 32)]
                result = surface.align_to_surface(seen, points[inside], ray)
                assert result.status is SurfaceStatus.OK
                errors_m.append(off_m + result.shift_m)
    assert len(errors_m) >= 4
    assert np.abs(errors_m).max() < 0.15 and np.median(np.abs(errors_m)) < 0.08
