"""Image loading and the camera after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from human_scene_ros.errors import CalibrationError, ImageError, ShapeError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.model.preprocess import place, resize_and_crop, to_tensor

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "network"


@pytest.mark.parametrize("case", range(5))
def test_pixels_equal_the_official_ones(case: int):
    """Exact: the same PIL filters on the same bytes."""
    golden = np.load(GOLDEN / "preprocess_and_units.npz")
    image = golden[f"case{case}.input_u8"]
    placement = place(image.shape[1], image.shape[0], int(golden[f"case{case}.size"]))
    np.testing.assert_array_equal(resize_and_crop(image, placement), golden[f"case{case}.output_u8"])


@pytest.mark.parametrize(("size", "network_width", "expected"), [
    ((640, 480), 512, (512, 384)), ((1920, 1080), 512, (512, 288)), ((1080, 1920), 512, (288, 512)),
    ((480, 480), 512, (512, 384)), ((640, 480), 160, (160, 112)), ((480, 480), 160, (160, 112)),
    ((101, 67), 160, (160, 96)), ((160, 112), 160, (160, 112))])
def test_sizes(size: tuple[int, int], network_width: int, expected: tuple[int, int]):
    placement = place(*size, network_width)
    assert placement.size == expected
    assert resize_and_crop(np.zeros((size[1], size[0], 3), np.uint8), placement).shape == (*expected[::-1], 3)


def test_the_official_square_rule_can_leave_part_of_a_patch():
    assert place(100, 100, 112, whole_patches=False).size == (112, 84)
    assert place(100, 100, 112).size == (112, 80)


@pytest.mark.parametrize("size", [(640, 480), (333, 217), (90, 130), (100, 100)])
def test_a_point_seen_in_the_input_is_seen_at_its_place_in_the_network_image(size: tuple[int, int]):
    camera = PinholeCamera(*size, 0.8 * size[0], 0.9 * size[0], 0.48 * size[0], 0.52 * size[1])
    placement = place(*size, 160)
    points = np.array([[0.1, -0.2, 2.0], [-0.5, 0.3, 3.0], [0.0, 0.0, 1.0]])
    uv_input, uv_network = camera.project(points), placement.camera(camera).project(points)
    np.testing.assert_allclose(placement.to_network_px(uv_input), uv_network, atol=1e-9)
    np.testing.assert_allclose(placement.to_input_px(uv_network), uv_input, atol=1e-9)


def test_values_span_minus_one_to_one():
    image = np.zeros((16, 16, 3), np.uint8)
    image[0, 0] = (255, 127, 0)
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 16, 16)
    np.testing.assert_allclose(tensor[0, :, 0, 0].numpy(), [1.0, 127 / 255 * 2 - 1, -1.0], atol=1e-6)


def test_errors_name_both_sizes():
    with pytest.raises(ImageError, match="image of 4000x50 px becomes 160x2 px for a network of width 160"):
        place(4000, 50, 160)
    with pytest.raises(ImageError, match="0x480"):
        place(0, 480, 160)
    with pytest.raises(ShapeError, match=r"uint16; expected \(H, W, 3\) uint8"):
        resize_and_crop(np.zeros((480, 640, 3), np.uint16), place(640, 480, 160))
    with pytest.raises(ShapeError, match="320x240 px; expected 640x480 px"):
        resize_and_crop(np.zeros((240, 320, 3), np.uint8), place(640, 480, 160))
    with pytest.raises(CalibrationError, match="calibrated for 320x240 px, but the image has 640x480 px"):
        place(640, 480, 160).camera(PinholeCamera.from_fov(320, 240, 60.0))
