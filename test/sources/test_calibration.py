"""CameraInfo to pinhole, and distortion removal against the distortion formulas written out here."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from human_scene_ros.errors import CalibrationError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.sources.calibration import Calibration, is_rectified_topic

WIDTH, HEIGHT = 320, 240
K = np.array([[200.0, 0.0, 158.0], [0.0, 205.0, 121.0], [0.0, 0.0, 1.0]])


def info(**changes: object) -> SimpleNamespace:
    values = {"width": WIDTH, "height": HEIGHT, "distortion_model": "plumb_bob", "d": np.zeros(5), "k": K.reshape(-1),
              "p": np.array([210.0, 0.0, 150.0, 0.0, 0.0, 211.0, 119.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
              "binning_x": 0, "binning_y": 0,
              "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)}
    return SimpleNamespace(**{**values, **changes})


def brown(x: float, y: float, d: list[float]) -> tuple[float, float]:
    """OpenCV's (rational) Brown-Conrady model, as sensor_msgs/distortion_models documents it."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (d + [0.0] * 8)[:8]
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y)


def kannala(x: float, y: float, d: list[float]) -> tuple[float, float]:
    """Equidistant fisheye (Kannala and Brandt 2006)."""
    r = np.hypot(x, y)
    t = np.arctan(r)
    scaled = t * (1 + d[0] * t**2 + d[1] * t**4 + d[2] * t**6 + d[3] * t**8)
    factor = scaled / r if r > 1e-9 else 1.0
    return x * factor, y * factor


def spot(u: float, v: float) -> np.ndarray:
    """A soft white spot centred at pixel (u, v) on black."""
    column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    value = 255 * np.exp(-((column - u) ** 2 + (row - v) ** 2) / (2 * 2.5**2))
    return np.repeat(value.astype(np.uint8)[..., None], 3, axis=2)


def centre(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float)
    column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    return np.array([(weight * column).sum(), (weight * row).sum()]) / weight.sum()


@pytest.mark.parametrize(("model", "d", "distort"), [
    ("plumb_bob", [-0.25, 0.06, 0.002, -0.003, 0.0], brown),
    ("rational_polynomial", [0.3, 0.05, 0.001, -0.001, 0.01, 0.5, 0.1, 0.02], brown),
    ("equidistant", [0.02, -0.01, 0.003, -0.001], kannala),
])
@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.45, 0.3), (-0.5, -0.35), (0.5, -0.3)])
def test_a_point_is_seen_where_the_pinhole_camera_sees_it(model: str, d: list[float], distort, x: float,
                                                          y: float) -> None:
    xd, yd = distort(x, y, d)
    raw = spot(200.0 * xd + 158.0, 205.0 * yd + 121.0)
    calibration = Calibration.from_message(info(distortion_model=model, d=np.array(d)), WIDTH, HEIGHT)
    assert calibration is not None
    u, v = calibration.camera.project(np.array([x, y, 1.0]))
    np.testing.assert_allclose(centre(calibration.undistorted(raw)), [u, v], atol=0.35)


def test_nearest_keeps_the_values() -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[:, WIDTH // 2:] = 200
    calibration = Calibration.from_message(info(d=np.array([-0.3, 0.1, 0.0, 0.0, 0.0])), WIDTH, HEIGHT)
    assert calibration is not None
    assert set(np.unique(calibration.undistorted(labels, nearest=True))) == {0, 200}


def test_without_distortion_the_image_is_untouched() -> None:
    calibration = Calibration.from_message(info(), WIDTH, HEIGHT)
    assert calibration is not None and calibration.camera == PinholeCamera(WIDTH, HEIGHT, 200.0, 205.0, 158.0, 121.0)
    image = spot(10, 10)
    assert calibration.undistorted(image) is image


def test_rectified_images_take_p_and_no_distortion() -> None:
    calibration = Calibration.from_message(info(d=np.array([-0.3, 0.1, 0.0, 0.0, 0.0])), WIDTH, HEIGHT, rectified=True)
    assert calibration == Calibration(PinholeCamera(WIDTH, HEIGHT, 210.0, 211.0, 150.0, 119.0))
    assert is_rectified_topic("/cam/image_rect_color/compressed") and is_rectified_topic("/cam/image_rect")
    assert not is_rectified_topic("/cam/image_raw") and not is_rectified_topic("/direct/image")


def test_an_uncalibrated_camera_is_none() -> None:
    assert Calibration.from_message(info(k=np.zeros(9)), WIDTH, HEIGHT) is None


def test_binning_and_region_of_interest() -> None:
    roi = SimpleNamespace(x_offset=20, y_offset=10, width=200, height=100, do_rectify=False)
    calibration = Calibration.from_message(info(roi=roi, binning_x=2, binning_y=2), 100, 50)
    assert calibration is not None
    # Sensor pixel u lies in binned pixel (u - 20 + 0.5) / 2 - 0.5.
    expected = PinholeCamera(100, 50, 100.0, 102.5, (158.0 - 20 + 0.5) / 2 - 0.5, (121.0 - 10 + 0.5) / 2 - 0.5)
    np.testing.assert_allclose(dataclasses.astuple(calibration.camera), dataclasses.astuple(expected))


@pytest.mark.parametrize(("changes", "text"), [
    ({"width": 640, "height": 480}, "camera_info is for 640x480 px, the image is 320x240"),
    ({"k": np.where(K == 158.0, np.nan, K).reshape(-1)}, "camera cx = nan: must be finite"),
    ({"k": np.where(K == 200.0, -1.0, K).reshape(-1)}, "must be positive"),
    ({"d": np.array([0.1, np.nan, 0, 0, 0])}, r"distortion \[0.1, nan, 0.0, 0.0, 0.0\]: must be finite"),
    ({"d": np.array([0.1, 0.2, 0.0])}, "'plumb_bob' has 3 coefficients; expected 4 or 5"),
    ({"d": np.array([0.1]), "distortion_model": "my_lens"}, "'my_lens' is not known; known: plumb_bob"),
])
def test_unusable_calibrations_say_why(changes: dict, text: str) -> None:
    with pytest.raises(CalibrationError, match=text):
        Calibration.from_message(info(**changes), WIDTH, HEIGHT)


def test_an_image_of_another_size_is_refused() -> None:
    calibration = Calibration.from_message(info(), WIDTH, HEIGHT)
    assert calibration is not None
    with pytest.raises(CalibrationError, match="image is 100x50 px, the calibration is for 320x240"):
        calibration.undistorted(np.zeros((50, 100, 3), np.uint8))
