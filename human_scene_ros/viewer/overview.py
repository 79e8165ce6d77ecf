"""One picture that shows a whole run: the input with its people, the depth, and the scene from outside.

The picture is made of what was estimated; the only thing it adds is the true camera path, dashed and labelled,
where a recording has one.
"""

from __future__ import annotations

import colorsys
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from human_scene_ros.body.model import BodyModel, vertices
from human_scene_ros.body.parameters import BodyParameters
from human_scene_ros.body.skeleton import PARENTS
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import apply, invert, make_transform
from human_scene_ros.scene import SceneEstimate, TrackState
from human_scene_ros.viewer.raster import Canvas, Color, shaded_mesh

Image8 = NDArray[np.uint8]

# Muted, equally strong colours, told apart also without red-green vision (after Okabe and Ito).
PALETTE: tuple[Color, ...] = (
    (0.90, 0.47, 0.13), (0.15, 0.50, 0.78), (0.16, 0.63, 0.45), (0.80, 0.38, 0.60), (0.55, 0.44, 0.80),
    (0.76, 0.62, 0.10), (0.20, 0.66, 0.75), (0.72, 0.30, 0.26))

_PAGE, _INK, _SOFT = "#ffffff", "#1d2430", "#6b7482"
_PANEL_RGB: Color = (0xF4 / 255, 0xF5 / 255, 0xF7 / 255)
_PATH_COLORS = np.array([[0.62, 0.72, 0.90], [0.10, 0.22, 0.55]])  # start, end
_TRUTH_COLOR: Color = (0.45, 0.47, 0.50)
_MOMENT_COLOR: Color = (0.85, 0.18, 0.20)

WIDTH, HEIGHT = 1920, 1080
_MARGIN, _GAP, _HEAD, _FOOT, _LABEL = 44, 28, 92, 62, 34
_LEFT = 690  # widest the panels on the left may get, with the colour bar
_LEFT_PORTRAIT = 900
_BAR = 94
_SCALE_3D = 2  # supersampling of the 3-D view


def track_color(track_id: int) -> Color:
    """The colour of a person in every panel: the palette, then the same hues lighter and darker."""
    base = PALETTE[track_id % len(PALETTE)]
    turn = track_id // len(PALETTE) % 3
    if turn == 0:
        return base
    hue, lightness, saturation = colorsys.rgb_to_hls(*base)
    return colorsys.hls_to_rgb(hue, lightness * (1.25 if turn == 1 else 0.75), saturation)


@dataclasses.dataclass(frozen=True)
class PersonView:
    """One person of the moment that is shown.

    Args:
        track_id: Decides the colour.
        joints_camera: (55, 3) metres, optical frame.
        parameters: For the mesh; None = skeleton only.
        seen: False for a person that is extrapolated.
    """

    track_id: int
    joints_camera: NDArray[np.floating]
    parameters: BodyParameters | None = None
    seen: bool = True


@dataclasses.dataclass(frozen=True)
class Moment:
    """The frame that is shown in the panels on the left.

    Args:
        image: (H, W, 3) RGB.
        camera: Intrinsics of the image.
        T_world_camera: (4, 4).
        people: Who is there.
        depth_m: (h, w) metres along z, NaN or 0 = none; any resolution.
    """

    image: Image8
    camera: PinholeCamera
    T_world_camera: NDArray[np.floating]
    people: tuple[PersonView, ...]
    depth_m: NDArray[np.floating]

    @classmethod
    def from_estimate(cls, image: Image8, estimate: SceneEstimate) -> Moment:
        """The moment of one step of the stream; tracks that ended are left out."""
        people = tuple(
            PersonView(b.track_id, b.joints_camera, b.parameters, b.track_state is not TrackState.PREDICTED)
            for b in estimate.bodies if b.track_state is not TrackState.LOST)
        return cls(image, estimate.camera, estimate.T_world_camera, people, estimate.points_camera[..., 2])

    def interest(self) -> float:
        """How much there is to see: the more, larger and more separate the people, the better."""
        height, width = self.image.shape[:2]
        score = 0.0
        for person in self.people:
            uv = self.camera.project(np.asarray(person.joints_camera[:22], np.float64))
            inside = (uv[:, 0] >= 0) & (uv[:, 0] < width) & (uv[:, 1] >= 0) & (uv[:, 1] < height)
            if person.seen and inside.any():
                extent = np.ptp(uv[inside], axis=0).max() / max(height, width)
                score += inside.mean() ** 2 * (1.0 + min(float(extent), 0.6))
            elif not person.seen:
                score -= 0.5
        return score


@dataclasses.dataclass(frozen=True)
class Overview:
    """Everything in the picture.

    Args:
        moment: Panels on the left, and the bodies of the 3-D view.
        path: (T, 4, 4) T_world_camera of all frames, in order.
        points_world: (N, 3) metres, the map or the points of the moment.
        colors: (N, 3) uint8.
        trails: track_id -> (n, 3) pelvis in the world over time.
        title: Large text.
        subtitle: Small text beside it: which weights ran.
        facts: Label -> value, for the line at the bottom.
        true_path: (T, 3) true camera positions, already in the estimated world; None = unknown.
    """

    moment: Moment
    path: NDArray[np.floating]
    points_world: NDArray[np.floating]
    colors: Image8
    trails: Mapping[int, NDArray[np.floating]]
    title: str = "Humans, map and camera"
    subtitle: str = ""
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    true_path: NDArray[np.floating] | None = None


def save_overview(path: Path, overview: Overview, body_model: BodyModel) -> None:
    """Draw and write a PNG."""
    Image.fromarray(draw_overview(overview, body_model)).save(path)


def draw_overview(overview: Overview, body_model: BodyModel) -> Image8:
    """The picture, (1080, 1920, 3) RGB."""
    page = Image.new("RGB", (WIDTH, HEIGHT), _PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, 36), overview.title, _INK, font(34), anchor="lt")
    draw.text((WIDTH - _MARGIN, 46), overview.subtitle, _SOFT, font(19), anchor="rt")

    body_height = HEIGHT - _HEAD - _FOOT
    moment = overview.moment
    height, width = moment.image.shape[:2]
    if height > 1.2 * width:  # portrait: side by side, else one above the other
        fitted = _fit(width, height, (_LEFT_PORTRAIT - _BAR - _GAP) // 2, body_height - _LABEL)
        second = (_MARGIN + fitted[0] + _GAP, _HEAD)
    else:
        panel_height = (body_height - _GAP) // 2 - _LABEL
        fitted = _fit(width, height, _LEFT - _BAR, panel_height)
        second = (_MARGIN, _HEAD + _LABEL + panel_height + _GAP)
    _panel(page, (_MARGIN, _HEAD), "Input and projected bodies", people_panel(moment, body_model, fitted))
    _panel(page, second, "Depth", _depth_panel(moment, fitted))

    left = second[0] + fitted[0] + _BAR + _GAP
    size = (WIDTH - _MARGIN - left, body_height - _LABEL)
    draw.text((left, _HEAD), "Scene from outside: map without people, camera path, people and where they went", _SOFT,
              font(19), anchor="lt")
    view, legend = _scene_view(overview, body_model, *size)
    page.paste(view, (left, _HEAD + _LABEL))
    _legend(draw, legend, (left + 18, _HEAD + _LABEL + 18))
    facts_line(draw, overview.facts)
    return np.asarray(page)


# --- the page ----------------------------------------------------------------------------------------------------

def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one small bitmap font
        return ImageFont.load_default()


def _panel(page: Image.Image, corner: tuple[int, int], label: str, picture: Image8) -> None:
    """A labelled picture; both panels on the left begin at the same column, so that they can be compared."""
    ImageDraw.Draw(page).text(corner, label, _SOFT, font(19), anchor="lt")
    page.paste(Image.fromarray(picture), (corner[0], corner[1] + _LABEL))


def facts_line(draw: ImageDraw.ImageDraw, facts: Mapping[str, str]) -> None:
    x, y = _MARGIN, HEIGHT - _FOOT + 38
    for label, value in facts.items():
        draw.text((x, y), label, _SOFT, font(19), anchor="ls")
        x += int(draw.textlength(label, font(19))) + 8
        draw.text((x, y), value, _INK, font(19), anchor="ls")
        x += int(draw.textlength(value, font(19))) + 34


def _legend(draw: ImageDraw.ImageDraw, entries: Sequence[tuple[str, Color, bool]], corner: tuple[int, int]) -> None:
    x, y = corner
    for text, color, dashed in entries:
        rgb = tuple(round(255 * c) for c in color)
        for start in (0, 14) if dashed else (0,):
            draw.line((x + start, y + 9, x + start + (9 if dashed else 24), y + 9), fill=rgb, width=4)
        draw.text((x + 34, y), text, _SOFT, font(17), anchor="lt")
        y += 26


# --- panels ------------------------------------------------------------------------------------------------------

def _fit(width: int, height: int, box_width: int, box_height: int) -> tuple[int, int]:
    scale = min(box_width / width, box_height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def people_panel(moment: Moment, body_model: BodyModel, size: tuple[int, int]) -> Image8:
    """The input with translucent bodies and their skeletons, far people first."""
    camera = moment.camera.resized(*size)
    image = cv2.resize(moment.image, size, interpolation=cv2.INTER_CUBIC).astype(np.float32) / 255.0
    for person in sorted(moment.people, key=lambda p: -float(p.joints_camera[0, 2])):
        color = track_color(person.track_id)
        if person.parameters is not None:
            posed, faces = vertices(body_model, person.parameters, lod=_best_lod(body_model))
            shade, depth = shaded_mesh(posed, faces, color, camera)
            cover = cv2.GaussianBlur(np.isfinite(depth).astype(np.float32), (3, 3), 0)[..., None]
            cover *= 0.62 if person.seen else 0.3
            filled = np.where(np.isfinite(depth)[..., None], shade, np.asarray(color, np.float32))
            image = (1.0 - cover) * image + cover * filled
    canvas = np.clip(255.0 * image, 0, 255).astype(np.uint8)
    for person in moment.people:
        if person.seen:
            _draw_skeleton(canvas, person, camera)
    return canvas


def _draw_skeleton(image: Image8, person: PersonView, camera: PinholeCamera) -> None:
    uv = camera.project(np.asarray(person.joints_camera[:22], np.float64))
    usable = np.isfinite(uv).all(axis=1) & (np.abs(uv) < 16000).all(axis=1)
    size_px = float(np.ptp(uv[usable], axis=0).max()) if usable.any() else 0.0
    thick = 2 if size_px > 180 else 1
    bright = tuple(int(255 * (0.35 * c + 0.65)) for c in track_color(person.track_id))
    points = [tuple(int(round(16 * v)) for v in p) if ok else None for p, ok in zip(uv, usable, strict=True)]
    for joint in range(1, len(points)):
        start, end = points[joint], points[PARENTS[joint]]
        if start is not None and end is not None:
            cv2.line(image, start, end, bright, thick, cv2.LINE_AA, 4)
    for point in points:
        if point is not None and size_px > 60:
            cv2.circle(image, point, 16 * (thick + 1), (255, 255, 255), -1, cv2.LINE_AA, 4)


def _best_lod(body_model: BodyModel) -> int:
    return 1 if 1 in body_model.lods else 0


def _depth_panel(moment: Moment, size: tuple[int, int]) -> Image8:
    """The depth in the size of the image panel, and its colour bar."""
    depth = np.asarray(moment.depth_m, np.float32)
    valid = np.isfinite(depth) & (depth > 0)
    low, high = (float(v) for v in np.percentile(depth[valid], [1, 99])) if valid.any() else (0.0, 1.0)
    high = max(high, low + 0.1)
    fraction = np.clip((np.where(valid, depth, low) - low) / (high - low), 0.0, 1.0)
    colored = depth_colors(cv2.resize(fraction, size, interpolation=cv2.INTER_LINEAR))
    colored[cv2.resize(valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) == 0] = (225, 228, 232)

    out = np.full((size[1], size[0] + _BAR, 3), 255, np.uint8)
    out[:, :size[0]] = colored
    column, thick, end = size[0] + 16, 16, 8
    ramp = np.linspace(0.0, 1.0, size[1] - 2 * end, dtype=np.float32)[:, None]
    out[end:-end, column:column + thick] = depth_colors(np.broadcast_to(ramp, (len(ramp), thick)))
    picture = Image.fromarray(out)
    pen = ImageDraw.Draw(picture)
    for value in _ticks(low, high):
        y = end + (value - low) / (high - low) * (len(ramp) - 1)
        pen.line((column + thick, y, column + thick + 5, y), fill=_SOFT)
        pen.text((column + thick + 9, y), f"{value:g} m", _SOFT, font(16), anchor="lm")
    return np.asarray(picture)


def depth_colors(fraction: NDArray[np.floating]) -> Image8:
    """(H, W) in [0, 1], near to far, -> (H, W, 3) RGB: warm and light is near."""
    values = np.clip(255.0 * (1.0 - fraction), 0, 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(values, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)


def _ticks(low: float, high: float) -> list[float]:
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000, 1e9) if (high - low) / s <= 6)
    first = math.ceil(low / step)
    return [round(k * step, 6) for k in range(first, int(high / step) + 1)]


# --- the scene from outside --------------------------------------------------------------------------------------

def _scene_view(overview: Overview, body_model: BodyModel, width: int,
                height: int) -> tuple[Image.Image, list[tuple[str, Color, bool]]]:
    points, colors = _tidy(overview.points_world, overview.colors)
    people = _people_world(overview.moment, body_model)
    floor_z = _floor(points, overview, people)
    camera = PinholeCamera.from_fov(_SCALE_3D * width, _SCALE_3D * height, 40.0)
    T_world_eye = _viewpoint(overview, people, points, floor_z, camera)
    T_eye_world = invert(T_world_eye)
    canvas = Canvas(camera, _PANEL_RGB)

    _floor_grid(canvas, T_eye_world, overview, people, points, floor_z)
    tint = colors.astype(np.float32) * np.float32(0.85 / 255.0) + np.float32(0.15) * np.asarray(_PANEL_RGB, np.float32)
    canvas.points(apply(T_eye_world, points), tint, 2, size_m=1.1 * _spacing(points))

    for track_id, trail in overview.trails.items():
        if len(trail) > 1:
            canvas.line(apply(T_eye_world, _smooth(_on_floor(trail, floor_z))), track_color(track_id), 7, bias_m=0.10)
    for person, posed, faces in people:
        if posed is not None:
            canvas.mesh(apply(T_eye_world, posed), faces, track_color(person.track_id),
                        alpha=1.0 if person.seen else 0.45)
        else:
            _skeleton_world(canvas, T_eye_world, overview.moment, person)
    _camera_path(canvas, T_eye_world, overview)
    legend: list[tuple[str, Color, bool]] = [("camera path", (0.10, 0.22, 0.55), False),
                                             ("camera of the frame on the left", _MOMENT_COLOR, False)]
    if overview.true_path is not None:
        legend.append(("true camera path", _TRUTH_COLOR, True))
    picture = Image.fromarray(canvas.to_image(_SCALE_3D))
    ImageDraw.Draw(picture).text((width - 16, height - 14), "grid 1 m", _SOFT, font(17), anchor="rb")
    return picture, legend


def _tidy(points: NDArray[np.floating], colors: Image8) -> tuple[NDArray[np.float64], Image8]:
    """Without invalid points and the far tail, which would make everything else small."""
    points = np.asarray(points, np.float64).reshape(-1, 3)
    colors = np.asarray(colors, np.uint8).reshape(-1, 3)
    keep = np.isfinite(points).all(axis=1)
    if keep.sum() > 50:
        middle = np.median(points[keep], axis=0)
        away = np.linalg.norm(points - middle, axis=1)
        keep &= away <= 1.3 * np.percentile(away[keep], 95)
    return points[keep], colors[keep]


def _people_world(moment: Moment, body_model: BodyModel) -> list[
        tuple[PersonView, NDArray[np.float64] | None, NDArray[np.integer]]]:
    people: list[tuple[PersonView, NDArray[np.float64] | None, NDArray[np.integer]]] = []
    for person in moment.people:
        posed, faces = None, np.zeros((0, 3), np.int64)
        if person.parameters is not None:
            mesh, faces = vertices(body_model, person.parameters, lod=_best_lod(body_model))
            posed = np.asarray(apply(moment.T_world_camera, mesh), np.float64)
        people.append((person, posed, faces))
    return people


def _floor(points: NDArray[np.float64], overview: Overview,
           people: Sequence[tuple[PersonView, NDArray[np.float64] | None, NDArray[np.integer]]]) -> float:
    """Height of the floor: feet of the people, else the lowest points, else 1.4 m below the camera."""
    feet = [float(posed[:, 2].min()) for _, posed, _ in people if posed is not None]
    if feet:
        return float(np.median(feet))
    if len(points):
        return float(np.percentile(points[:, 2], 2))
    return float(overview.path[0][2, 3]) - 1.4


def _viewpoint(overview: Overview,
               people: Sequence[tuple[PersonView, NDArray[np.float64] | None, NDArray[np.integer]]],
               points: NDArray[np.float64], floor_z: float, camera: PinholeCamera) -> NDArray[np.float64]:
    """T_world_eye: from behind and above the camera, turned a little, everything in view.

    The camera saw the surfaces that face it, so from behind it rooms are open and nothing stands in the way.
    """
    path = np.asarray(overview.path, np.float64)
    important = [path[:, :3, 3]]
    important += [posed for _, posed, _ in people if posed is not None]
    trails = [_on_floor(t, floor_z) for t in overview.trails.values() if len(t)]
    if trails:  # a moment's mistake far away must not make everything else small
        low, high = np.percentile(np.concatenate(trails), [4, 96], axis=0)
        important.append(np.clip(np.concatenate(trails), low, high))
    if len(points):
        low, high = np.percentile(points, [6, 94], axis=0)
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1])
                            for z in (low[2], min(high[2], floor_z + 2.2))])
        important.append(corners)
    cloud = np.concatenate(important)
    cloud = cloud[np.isfinite(cloud).all(axis=1)]
    middle = 0.5 * (cloud.min(axis=0) + cloud.max(axis=0))

    forward = path[:, :3, 2].mean(axis=0)
    heading = math.atan2(forward[1], forward[0]) if np.hypot(*forward[:2]) > 1e-6 else 0.0
    heading += math.radians(24.0)
    elevation = math.radians(33.0)
    look = np.array([math.cos(heading) * math.cos(elevation), math.sin(heading) * math.cos(elevation),
                     -math.sin(elevation)])
    right = np.cross(look, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rot_world_eye = np.column_stack([right, np.cross(look, right), look])
    # The nearest distance from which every point is inside the picture with a margin.
    local = (cloud - middle) @ rot_world_eye
    half_u, half_v = 0.90 * camera.width / 2 / camera.fx, 0.90 * camera.height / 2 / camera.fy
    distance = float(np.max(np.maximum(np.abs(local[:, 0]) / half_u, np.abs(local[:, 1]) / half_v) - local[:, 2]))
    return make_transform(rot_world_eye, middle - max(distance, 1.5) * look)


def _floor_grid(canvas: Canvas, T_eye_world: NDArray[np.float64], overview: Overview,
                people: Sequence[tuple[PersonView, NDArray[np.float64] | None, NDArray[np.integer]]],
                points: NDArray[np.float64], floor_z: float) -> None:
    parts = [np.asarray(overview.path, np.float64)[:, :2, 3]]
    parts += [posed[:, :2] for _, posed, _ in people if posed is not None]
    if len(points):
        parts.append(np.percentile(points[:, :2], [3, 97], axis=0))
    ground = np.concatenate(parts)
    low, high = np.floor(ground.min(axis=0) - 0.5), np.ceil(ground.max(axis=0) + 0.5)
    if np.max(high - low) > 60.0:  # a grid of metres says nothing at that size
        return
    for axis in (0, 1):
        for value in np.arange(low[axis], high[axis] + 0.5):
            ends = np.empty((2, 3))
            ends[:, axis], ends[:, 1 - axis], ends[:, 2] = value, (low[1 - axis], high[1 - axis]), floor_z - 0.02
            canvas.line(apply(T_eye_world, ends), (0.86, 0.875, 0.895), 2, bias_m=0.0)


def _camera_path(canvas: Canvas, T_eye_world: NDArray[np.float64], overview: Overview) -> None:
    path = np.asarray(overview.path, np.float64)
    centres = path[:, :3, 3]
    along = np.linspace(0.0, 1.0, len(path))[:, None]
    canvas.line(apply(T_eye_world, centres), (1 - along) * _PATH_COLORS[0] + along * _PATH_COLORS[1], 7, bias_m=5.0)
    if overview.true_path is not None:
        _dashed(canvas, apply(T_eye_world, np.asarray(overview.true_path, np.float64)), _TRUTH_COLOR)
    moment = np.asarray(overview.moment.T_world_camera, np.float64)
    shown = path[_spread(centres)]
    for k, T_world_camera in enumerate(shown):
        t = k / max(len(shown) - 1, 1)
        _frustum(canvas, T_eye_world, T_world_camera, overview.moment.camera, 0.22,
                 (1 - t) * _PATH_COLORS[0] + t * _PATH_COLORS[1], 3)
    _frustum(canvas, T_eye_world, moment, overview.moment.camera, 0.38, np.array(_MOMENT_COLOR), 5)


def _spread(centres: NDArray[np.float64], most: int = 7, spacing_m: float = 0.35) -> list[int]:
    """Indices of poses evenly spaced along the path: at most `most`, and not closer than their frusta are large."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(centres, axis=0), axis=1))])
    reach = float(np.linalg.norm(np.ptp(centres, axis=0)))
    count = int(np.clip(reach / spacing_m + 1, 1, most))
    return sorted({int(np.argmin(np.abs(along - s))) for s in np.linspace(0.0, along[-1], count)})


def _frustum(canvas: Canvas, T_eye_world: NDArray[np.float64], T_world_camera: NDArray[np.float64],
             camera: PinholeCamera, size_m: float, color: NDArray[np.float64], width_px: int) -> None:
    corners = np.array([[0, 0], [camera.width, 0], [camera.width, camera.height], [0, camera.height]], np.float64) - 0.5
    tips = camera.unproject(corners, np.full(4, size_m))
    points = apply(T_eye_world @ T_world_camera, np.concatenate([np.zeros((1, 3)), tips]))
    for line in ([1, 2, 3, 4, 1], [0, 1], [0, 2], [0, 3], [0, 4]):
        canvas.line(points[line], color, width_px, bias_m=5.0)


def _dashed(canvas: Canvas, points_eye: NDArray[np.floating], color: Color) -> None:
    steps = np.linalg.norm(np.diff(points_eye, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    if along[-1] < 1e-6:
        return
    dash = max(along[-1] / 60.0, 0.02)
    for start in np.arange(0.0, along[-1], 2.0 * dash):
        s = np.linspace(start, min(start + dash, along[-1]), 5)
        canvas.line(np.column_stack([np.interp(s, along, points_eye[:, i]) for i in range(3)]), color, 5, bias_m=6.0)


def _skeleton_world(canvas: Canvas, T_eye_world: NDArray[np.float64], moment: Moment, person: PersonView) -> None:
    joints = apply(T_eye_world @ moment.T_world_camera, np.asarray(person.joints_camera[:22], np.float64))
    for joint in range(1, len(joints)):
        canvas.line(joints[[joint, PARENTS[joint]]], track_color(person.track_id), 7)


def _on_floor(trail: NDArray[np.floating], floor_z: float) -> NDArray[np.float64]:
    trail = np.asarray(trail, np.float64)
    return np.column_stack([trail[:, :2], np.full(len(trail), floor_z + 0.01)])


def _smooth(points: NDArray[np.float64], window: int = 5) -> NDArray[np.float64]:
    if len(points) < window:
        return points
    padded = np.pad(points, ((window // 2, window // 2), (0, 0)), mode="edge")
    return np.column_stack([np.convolve(padded[:, i], np.full(window, 1 / window), "valid") for i in range(3)])


def _spacing(points: NDArray[np.float64]) -> float:
    """Typical distance between points that are next to each other on a surface, metres."""
    if len(points) < 10:
        return 0.03
    from scipy.spatial import cKDTree

    sample = points[np.linspace(0, len(points) - 1, min(len(points), 400)).astype(int)]
    return float(np.percentile(cKDTree(points).query(sample, k=5)[0][:, 4], 60))
