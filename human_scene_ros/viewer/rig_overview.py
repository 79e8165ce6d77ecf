"""One picture of a rig at work: what each camera saw with the fused bodies in it, and the room from above."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from human_scene_ros.body.model import BodyModel
from human_scene_ros.viewer.overview import HEIGHT, WIDTH, Image8, Moment, facts_line, font, people_panel, track_color

_PAGE, _INK, _SOFT = "#ffffff", "#1d2430", "#6b7482"
_GRID, _FLOOR = (226, 229, 234), (246, 247, 249)
_MARGIN, _GAP, _HEAD, _FOOT, _LABEL = 44, 22, 92, 62, 30
_SHARP = 3  # supersampling of the view from above


@dataclasses.dataclass(frozen=True)
class RigCamera:
    """One camera of the picture.

    Args:
        name: Its label.
        moment: Its image with the fused people in its frame; None if it gave no image then.
        T_world_camera: (4, 4).
        fov_rad: Horizontal field of view.
        note: Behind the name, for instance when it was silent.
    """

    name: str
    moment: Moment | None
    T_world_camera: NDArray[np.floating]
    fov_rad: float
    note: str = ""


@dataclasses.dataclass(frozen=True)
class RigOverview:
    """Everything in the picture.

    Args:
        cameras: In the order of the panels; up to four are shown as panels, all from above.
        trails: Person -> (n, 2) metres on the floor over time; NaN where unseen.
        true_trails: The same of the truth; empty if there is none.
        now: Person -> (2,) where the moment's people stand.
        title: Large text.
        subtitle: Small text beside it.
        facts: Label -> value, for the line at the bottom.
    """

    cameras: Sequence[RigCamera]
    trails: Mapping[int, NDArray[np.floating]]
    true_trails: Sequence[NDArray[np.floating]]
    now: Mapping[int, NDArray[np.floating]]
    title: str = "One room, several cameras, every person once"
    subtitle: str = ""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)


def draw_rig_overview(overview: RigOverview, body_model: BodyModel) -> Image8:
    """The picture, (1080, 1920, 3) RGB."""
    page = Image.new("RGB", (WIDTH, HEIGHT), _PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, 36), overview.title, _INK, font(34), anchor="lt")
    draw.text((WIDTH - _MARGIN, 46), overview.subtitle, _SOFT, font(19), anchor="rt")
    rows = 2 if len(overview.cameras) > 2 else 1
    height = (HEIGHT - _HEAD - _FOOT - (rows - 1) * _GAP) // 2 - _LABEL
    width = min(height * 4 // 3, 540)
    height = width * 3 // 4
    for k, camera in enumerate(overview.cameras[:4]):
        corner = (_MARGIN + (k % 2) * (width + _GAP), _HEAD + (k // 2) * (height + _LABEL + _GAP))
        draw.text(corner, camera.name, _SOFT, font(19), anchor="lt")
        if camera.note:
            end = corner[0] + int(draw.textlength(camera.name, font(19))) + 14
            draw.text((end, corner[1]), camera.note, "#b2452f", font(19), anchor="lt")
        picture = np.full((height, width, 3), 232, np.uint8)
        if camera.moment is not None:
            picture = _fitted(people_panel(camera.moment, body_model, _inside(camera.moment, width, height)), picture)
        page.paste(Image.fromarray(picture), (corner[0], corner[1] + _LABEL))
    left = _MARGIN + 2 * width + 2 * _GAP
    size = (WIDTH - _MARGIN - left, 2 * height + _LABEL + _GAP)
    draw.text((left, _HEAD), "From above: cameras, fused people, where they went", _SOFT, font(19), anchor="lt")
    page.paste(_from_above(overview, *size), (left, _HEAD + _LABEL))
    facts_line(draw, overview.facts)
    return np.asarray(page)


def _inside(moment: Moment, width: int, height: int) -> tuple[int, int]:
    h, w = moment.image.shape[:2]
    scale = min(width / w, height / h)
    return max(1, round(w * scale)), max(1, round(h * scale))


def _fitted(picture: Image8, frame: Image8) -> Image8:
    """The picture in the middle of the frame."""
    y, x = (frame.shape[0] - picture.shape[0]) // 2, (frame.shape[1] - picture.shape[1]) // 2
    frame[y:y + picture.shape[0], x:x + picture.shape[1]] = picture
    return frame


def _from_above(overview: RigOverview, width: int, height: int) -> Image.Image:
    centres = np.stack([camera.T_world_camera[:2, 3] for camera in overview.cameras])
    points = np.concatenate([centres, *[t[np.isfinite(t).all(axis=1)] for t in overview.trails.values()],
                             *overview.true_trails])
    low, high = points.min(axis=0) - 0.6, points.max(axis=0) + 0.6
    scale = _SHARP * min(width / (high[0] - low[0]), height / (high[1] - low[1]))
    middle = 0.5 * (low + high)

    def at(p: NDArray[np.floating]) -> tuple[int, int]:
        x, y = (np.asarray(p, np.float64)[:2] - middle) * scale
        return round(0.5 * _SHARP * width + x), round(0.5 * _SHARP * height - y)

    canvas = np.full((_SHARP * height, _SHARP * width, 3), _FLOOR, np.uint8)
    reach = max(width, height) * _SHARP / scale
    for metre in range(math.floor(-reach), math.ceil(reach) + 1):
        cv2.line(canvas, at(np.array([metre, -reach])), at(np.array([metre, reach])), _GRID, _SHARP)
        cv2.line(canvas, at(np.array([-reach, metre])), at(np.array([reach, metre])), _GRID, _SHARP)
    for camera in overview.cameras:
        _frustum(canvas, camera, at, silent=camera.moment is None)
    for trail in overview.true_trails:
        _dashed(canvas, [at(p) for p in trail], (150, 154, 160))
    for number, trail in overview.trails.items():
        color = tuple(round(255 * c) for c in track_color(number))
        for a, b in zip(trail[:-1], trail[1:], strict=True):
            if np.isfinite(a).all() and np.isfinite(b).all():
                cv2.line(canvas, at(a), at(b), color, 4 * _SHARP, cv2.LINE_AA)
    for number, place in overview.now.items():
        color = tuple(round(255 * c) for c in track_color(number))
        cv2.circle(canvas, at(place), 13 * _SHARP, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(canvas, at(place), 10 * _SHARP, color, -1, cv2.LINE_AA)
    picture = Image.fromarray(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA))
    draw = ImageDraw.Draw(picture)
    for camera in overview.cameras:
        x, y = (v / _SHARP for v in at(camera.T_world_camera[:2, 3]))
        towards = 0.5 * width - x, 0.5 * height - y
        shift = (-26 if towards[1] > 0 else 26)
        draw.text((min(max(x, 50), width - 50), y + shift), camera.name, _INK, font(17), anchor="mm")
    draw.text((width - 14, height - 12), "grid 1 m" + (", dashed: truth" if len(overview.true_trails) else ""), _SOFT,
              font(17), anchor="rb")
    return picture


def _frustum(canvas: Image8, camera: RigCamera, at: Callable[[NDArray[np.floating]], tuple[int, int]], *,
             silent: bool) -> None:
    """The field of view as a light wedge, the camera as a dark triangle."""
    place = np.asarray(camera.T_world_camera[:2, 3], np.float64)
    forward = np.asarray(camera.T_world_camera[:2, 2], np.float64)
    yaw = math.atan2(forward[1], forward[0])

    def edge(distance: float, turn: float) -> tuple[int, int]:
        angle = yaw + turn * 0.5 * camera.fov_rad
        return at(place + distance * np.array([math.cos(angle), math.sin(angle)]))

    wedge = np.array([at(place), *[edge(1.6, t) for t in np.linspace(-1.0, 1.0, 15)]])
    layer = canvas.copy()
    cv2.fillPoly(layer, [wedge], (214, 205, 205) if silent else (205, 218, 236), cv2.LINE_AA)
    cv2.addWeighted(layer, 0.75, canvas, 0.25, 0.0, canvas)
    small = np.array([at(place), edge(0.34, -0.8), edge(0.34, 0.8)])
    cv2.fillPoly(canvas, [small], (190, 80, 60) if silent else (52, 78, 130), cv2.LINE_AA)


def _dashed(canvas: Image8, points: Sequence[tuple[int, int]], color: tuple[int, int, int]) -> None:
    along = 0.0
    for a, b in zip(points[:-1], points[1:], strict=True):
        length = math.dist(a, b)
        if (along // (9 * _SHARP)) % 2 < 1.0:
            cv2.line(canvas, a, b, color, 2 * _SHARP, cv2.LINE_AA)
        along += length
