"""Single-part scan-line OpenEXR images, read without a library: what depth maps of renderers are stored in.

Source: "OpenEXR file layout" of the Academy Software Foundation. Compressions: none, ZIPS and ZIP.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import SourceError

_MAGIC = b"\x76\x2f\x31\x01"
_LINES_PER_BLOCK = {0: 1, 2: 1, 3: 16}  # NO, ZIPS, ZIP
_COMPRESSIONS = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
_TYPES = ("<u4", "<f2", "<f4")


def read_exr(path: Path) -> dict[str, NDArray[np.float32]]:
    """Channel name -> (H, W) values.

    Raises:
        SourceError: Missing, cut, tiled, of several parts, or compressed in another way.
    """
    if not path.is_file():
        raise SourceError(f"{path} is missing; expected an OpenEXR image")
    data = path.read_bytes()
    try:
        return _read(data, path)
    except (struct.error, IndexError, ValueError, zlib.error, UnicodeDecodeError, KeyError) as error:
        raise SourceError(f"{path} ({len(data)} bytes) is cut or no OpenEXR image: {error!r}") from error


def _read(data: bytes, path: Path) -> dict[str, NDArray[np.float32]]:
    if data[:4] != _MAGIC:
        raise SourceError(f"{path} does not begin like an OpenEXR image")
    if struct.unpack_from("<I", data, 4)[0] & 0x1A00:
        raise SourceError(f"{path} is tiled, deep or of several parts; expected scan lines")
    attributes, offset = {}, 8
    while data[offset]:
        name, offset = _text(data, offset)
        _, offset = _text(data, offset)
        size = struct.unpack_from("<i", data, offset)[0]
        attributes[name] = data[offset + 4:offset + 4 + size]
        offset += 4 + size
    offset += 1
    channels = _channels(attributes["channels"])
    compression = attributes["compression"][0]
    if compression not in _LINES_PER_BLOCK:
        raise SourceError(f"{path} is compressed with {_COMPRESSIONS[compression]}; expected NO, ZIPS or ZIP")
    left, top, right, bottom = struct.unpack("<4i", attributes["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    if width <= 0 or height <= 0:
        raise SourceError(f"{path} is {width}x{height} px")
    line_bytes = sum(np.dtype(kind).itemsize for _, kind in channels) * width
    out = {name: np.zeros((height, width), np.float32) for name, _ in channels}
    lines = _LINES_PER_BLOCK[compression]
    for block in range(-(-height // lines)):
        start = struct.unpack_from("<Q", data, offset + 8 * block)[0]
        y, size = struct.unpack_from("<ii", data, start)
        count = min(lines, height - (y - top))
        raw = _unpacked(data[start + 8:start + 8 + size], compression, count * line_bytes)
        position = 0
        for row in range(y - top, y - top + count):
            for name, kind in channels:  # a line holds one channel after the other
                out[name][row] = np.frombuffer(raw, kind, width, position)
                position += np.dtype(kind).itemsize * width
    return out


def _unpacked(block: bytes, compression: int, size: int) -> bytes:
    if compression == 0 or len(block) == size:  # what does not shrink is stored as it is
        return block
    values = np.frombuffer(zlib.decompress(block), np.uint8).astype(np.int64)
    values[1:] -= 128
    values = np.cumsum(values).astype(np.uint8)  # predictor: differences of neighbours
    out = np.empty(len(values), np.uint8)
    half = (len(values) + 1) // 2
    out[0::2], out[1::2] = values[:half], values[half:]
    return out.tobytes()


def _channels(data: bytes) -> list[tuple[str, str]]:
    channels, offset = [], 0
    while data[offset]:
        name, offset = _text(data, offset)
        kind, _, x_step, y_step = struct.unpack_from("<iIii", data, offset)
        if (x_step, y_step) != (1, 1):
            raise ValueError(f"channel {name} is sub-sampled")
        channels.append((name, _TYPES[kind]))
        offset += 16
    return channels


def _text(data: bytes, offset: int) -> tuple[str, int]:
    end = data.index(b"\0", offset)
    return data[offset:end].decode("ascii"), end + 1
