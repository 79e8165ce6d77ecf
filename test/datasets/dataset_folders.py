"""Tiny folders in exactly the layout of each data set, from known numbers; and what all converters must satisfy."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from human_scene_ros.datasets.registry import DATASETS
from human_scene_ros.datasets.sequence import ConvertOptions, open_sequences, write_sequence
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.geometry.transform import make_transform
from human_scene_ros.sources.reader import BagSource, open_source

WALL_Z = 4.0
"""The world of folders with depth is a plane at this z."""


def convert(name: str, source: Path, out: Path, **options: object) -> dict[str, Path]:
    """Convert a folder and return recording by sequence."""
    chosen = ConvertOptions(**options)  # type: ignore[arg-type]
    dataset = DATASETS[name]
    return {s.name: Path(write_sequence(dataset, s, out, chosen)["folder"])
            for s in open_sequences(dataset, source, chosen)}


def opened(folder: Path, camera: str = "camera") -> BagSource:
    """One camera of a recording."""
    topic = f"/{camera}/image" if camera == "camera" else f"/{camera}/image_raw"
    source = open_source(folder, topic)
    assert isinstance(source, BagSource)
    return source


def camera_pose(seed: int) -> NDArray[np.float64]:
    """T_world_camera of a camera near the origin that looks roughly along +z, turned about all axes."""
    rng = np.random.default_rng(seed)
    return make_transform(Rotation.from_rotvec(rng.uniform(-0.3, 0.3, 3)).as_matrix(), rng.uniform(-0.5, 0.5, 3))


def wall_depth(camera: PinholeCamera, T_world_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H, W) metres along z to the plane z = WALL_Z of the world."""
    rays = camera.rays().astype(np.float64) @ T_world_camera[:3, :3].T
    return (WALL_Z - T_world_camera[2, 3]) / rays[..., 2]


def wall_error(depth_m: NDArray[np.float32], camera: PinholeCamera, T_world_camera: NDArray[np.float64]) -> float:
    """Largest distance of lifted depth from the wall, metres: zero only if K, pose and depth belong together."""
    points = camera.unproject_depth(depth_m).reshape(-1, 3).astype(np.float64)
    points = points[np.isfinite(points).all(axis=1)] @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    assert len(points) > 100
    return float(np.abs(points[:, 2] - WALL_Z).max())


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """A plain colour per frame."""
    return np.full((height, width, 3), (40 + 20 * number, 90, 200 - 20 * number), np.uint8)


def save_image(path: Path, number: int, width: int = 64, height: int = 48) -> bytes:
    """Write `picture(number)` as the suffix says; its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(number, width, height)[..., ::-1])
    return path.read_bytes()


def save_depth(path: Path, depth_m: NDArray[np.floating], units_per_metre: float) -> None:
    """16-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.rint(depth_m * units_per_metre).astype(np.uint16))


def save_video(path: Path, frames: int, width: int, height: int, fps: float = 30.0) -> None:
    """Plain colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    assert writer.isOpened()
    for i in range(frames):
        writer.write(picture(i, width, height)[..., ::-1])
    writer.release()


def save_exr(path: Path, channels: dict[str, NDArray[np.floating]], compression: int = 3) -> None:
    """Scan-line OpenEXR: 0 none, 2 ZIPS, 3 ZIP; float16 arrays are stored as half."""
    height, width = next(iter(channels.values())).shape
    kinds = {name: 1 if a.dtype == np.float16 else 2 for name, a in channels.items()}

    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value

    listed = b"".join(name.encode() + b"\0" + struct.pack("<iIii", kinds[name], 0, 1, 1)
                      for name in sorted(channels)) + b"\0"
    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    header = b"\x76\x2f\x31\x01" + struct.pack("<I", 2) + b"".join((
        attribute("channels", "chlist", listed), attribute("compression", "compression", bytes([compression])),
        attribute("dataWindow", "box2i", box), attribute("displayWindow", "box2i", box),
        attribute("lineOrder", "lineOrder", b"\0"), attribute("pixelAspectRatio", "float", struct.pack("<f", 1.0)),
        attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0)),
        attribute("screenWindowWidth", "float", struct.pack("<f", 1.0)))) + b"\0"
    lines = {0: 1, 2: 1, 3: 16}[compression]
    blocks = []
    for top in range(0, height, lines):
        raw = b"".join(np.ascontiguousarray(channels[name][y]).astype("<f2" if kinds[name] == 1 else "<f4").tobytes()
                       for y in range(top, min(top + lines, height)) for name in sorted(channels))
        blocks.append((top, _packed(raw) if compression else raw))
    offsets, position = [], len(header) + 8 * len(blocks)
    for _, block in blocks:
        offsets.append(position)
        position += 8 + len(block)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + struct.pack(f"<{len(offsets)}Q", *offsets) + b"".join(
        struct.pack("<ii", top, len(block)) + block for top, block in blocks))


def _packed(raw: bytes) -> bytes:
    values = np.frombuffer(raw, np.uint8)
    split = np.concatenate([values[0::2], values[1::2]]).astype(np.int64)
    split[1:] = (np.diff(split) + 128) & 255
    packed = zlib.compress(split.astype(np.uint8).tobytes())
    return packed if len(packed) < len(raw) else raw


# --- SMPL ---

def smpl_arrays(seed: int = 0) -> dict[str, NDArray]:
    """A body of SMPL's layout: 40 vertices, the first 24 of which are the joints."""
    rng = np.random.default_rng(seed)
    regressor = np.zeros((24, 40))
    regressor[np.arange(24), np.arange(24)] = 1.0
    parents = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    return {"v_template": rng.normal(0.0, 0.3, (40, 3)), "shapedirs": rng.normal(0.0, 0.02, (40, 3, 10)),
            "J_regressor": regressor, "kintree_table": np.array([[2**32 - 1, *parents[1:]], range(24)], np.int64)}


def save_smpl(folder: Path, *genders: str) -> Path:
    """SMPL_GENDER.npz files; all alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for gender in genders or ("NEUTRAL",):
        np.savez(folder / f"SMPL_{gender}.npz", **smpl_arrays())
    return folder


def smpl_joints(pose: NDArray, betas: NDArray, transl: NDArray) -> NDArray[np.float64]:
    """(24, 3) joints of `smpl_arrays`, by 4x4 matrices one after the other."""
    arrays = smpl_arrays()
    rest = arrays["J_regressor"] @ (arrays["v_template"] + arrays["shapedirs"] @ betas)
    parents = arrays["kintree_table"][0]
    chain = []
    for joint in range(24):
        local = np.eye(4)
        local[:3, :3] = cv2.Rodrigues(np.asarray(pose[3 * joint:3 * joint + 3], np.float64))[0]
        local[:3, 3] = rest[joint] - (rest[parents[joint]] if joint else 0.0)
        chain.append(local if joint == 0 else chain[parents[joint]] @ local)
    return np.array([T[:3, 3] for T in chain]) + transl


def look_at(target: NDArray, eye: NDArray, up: NDArray) -> NDArray[np.float64]:
    """T_world_camera with optical axes."""
    z = (target - eye) / np.linalg.norm(target - eye)
    x = np.cross(z, up)
    x /= np.linalg.norm(x)
    return make_transform(np.stack([x, np.cross(z, x), z], axis=1), eye)
