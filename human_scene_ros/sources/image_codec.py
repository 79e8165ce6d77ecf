"""Image messages <-> arrays, without cv_bridge: every usual encoding, any row step, both byte orders.

Images come out as (H, W, 3) uint8 RGB, depth as (H, W) float32 metres along z with 0 = no reading.
The functions take plain values; `decode_message` and `decode_depth_message` take any object with the
fields of sensor_msgs/Image or sensor_msgs/CompressedImage, whatever library made it.
"""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from human_scene_ros.errors import ImageError

MAX_PIXELS = 64_000_000
"""Larger images are refused: a broken header must not make a robot allocate gigabytes."""

RGB = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How the bytes of one encoding lie: `channels` values of `dtype` per pixel, then OpenCV's conversion."""

    channels: int
    dtype: str = "u1"
    code: int | None = None  # cv2.cvtColor to RGB; None where the channels are RGB already
    even_width: bool = False
    even_height: bool = False


# OpenCV names a Bayer pattern after the second row and column, ROS after the first: RGGB is OpenCV's "BG".
_BAYER = {"rggb": cv2.COLOR_BayerBG2RGB, "bggr": cv2.COLOR_BayerRG2RGB,
          "gbrg": cv2.COLOR_BayerGR2RGB, "grbg": cv2.COLOR_BayerGB2RGB}

_GRAY, _BGR, _BGRA, _RGBA = cv2.COLOR_GRAY2RGB, cv2.COLOR_BGR2RGB, cv2.COLOR_BGRA2RGB, cv2.COLOR_RGBA2RGB

_LAYOUTS: dict[str, _Layout] = {
    "mono8": _Layout(1, "u1", _GRAY), "8UC1": _Layout(1, "u1", _GRAY),
    "mono16": _Layout(1, "u2", _GRAY), "16UC1": _Layout(1, "u2", _GRAY),
    "rgb8": _Layout(3), "bgr8": _Layout(3, "u1", _BGR), "8UC3": _Layout(3, "u1", _BGR),
    "rgba8": _Layout(4, "u1", _RGBA), "bgra8": _Layout(4, "u1", _BGRA), "8UC4": _Layout(4, "u1", _BGRA),
    "rgb16": _Layout(3, "u2"), "bgr16": _Layout(3, "u2", _BGR), "16UC3": _Layout(3, "u2", _BGR),
    "rgba16": _Layout(4, "u2", _RGBA), "bgra16": _Layout(4, "u2", _BGRA), "16UC4": _Layout(4, "u2", _BGRA),
    "yuv422": _Layout(2, "u1", cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    "uyvy": _Layout(2, "u1", cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    "yuv422_yuy2": _Layout(2, "u1", cv2.COLOR_YUV2RGB_YUY2, even_width=True),
    "yuyv": _Layout(2, "u1", cv2.COLOR_YUV2RGB_YUY2, even_width=True),
    "nv12": _Layout(1, "u1", cv2.COLOR_YUV2RGB_NV12, even_width=True, even_height=True),
    "nv21": _Layout(1, "u1", cv2.COLOR_YUV2RGB_NV21, even_width=True, even_height=True),
    **{f"bayer_{p}8": _Layout(1, "u1", c, even_width=True, even_height=True) for p, c in _BAYER.items()},
    **{f"bayer_{p}16": _Layout(1, "u2", c, even_width=True, even_height=True) for p, c in _BAYER.items()},
}

# OpenCV before 4.11 decodes to BGR only.
_READ_RGB: int = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)

_END_MARKERS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}

IMAGE_ENCODINGS = tuple(sorted(_LAYOUTS))
DEPTH_ENCODINGS = ("16UC1", "32FC1", "mono16")


def decode_image(encoding: str, height: int, width: int, step: int, is_bigendian: bool, data: Any) -> RGB:
    """Pixels of a raw image message as RGB.

    16-bit values keep their upper part, round(v / 257). YUV is BT.601 with 16..235 luma, as OpenCV has it.

    Args:
        encoding: One of `IMAGE_ENCODINGS` (names of sensor_msgs/image_encodings.hpp, any letter case).
        height: Rows.
        width: Columns.
        step: Bytes from one row to the next; may be larger than the pixels need.
        is_bigendian: Byte order of 16-bit encodings.
        data: The bytes (bytes, array.array, memoryview or a uint8 array).

    Returns:
        (height, width, 3) uint8 RGB in memory of its own.

    Raises:
        ImageError: Unknown encoding, or size, step and length of the data do not fit.
    """
    layout = _LAYOUTS.get(encoding) or _LAYOUTS.get(encoding.lower())
    if layout is None:
        raise ImageError(f"image encoding '{encoding}' is not supported; supported: {', '.join(IMAGE_ENCODINGS)}"
                         + ("; this is a depth encoding: pass it as the depth topic" if encoding == "32FC1" else ""))
    _check_size(height, width)
    if (layout.even_width and width % 2) or (layout.even_height and height % 2):
        raise ImageError(f"image {width}x{height} px in '{encoding}': this encoding needs an even width"
                         + (" and height" if layout.even_height else ""))
    planar = encoding.lower() in ("nv12", "nv21")
    rows = height * 3 // 2 if planar else height
    pixels = _rows(data, rows, width, step, layout, encoding, is_bigendian)
    if layout.dtype == "u2":
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if layout.channels == 1:
        pixels = pixels[..., 0]
    if layout.code is None:
        return np.array(pixels)
    return np.asarray(cv2.cvtColor(pixels, layout.code), dtype=np.uint8)


def decode_compressed(format_text: str, data: Any) -> RGB:
    """JPEG, PNG (or whatever else Pillow and OpenCV know) as (H, W, 3) uint8 RGB; EXIF rotation is ignored.

    Args:
        format_text: `format` of sensor_msgs/CompressedImage; "... compressed rgb8" tells that the publisher
            fed red as the first channel to an encoder that expects blue there.
        data: The compressed bytes.

    Raises:
        ImageError: Empty, damaged or of an unknown kind, or too many pixels.
    """
    if "compressedDepth" in format_text:
        raise ImageError(f"compressed image format '{format_text}' is a depth image; pass it as the depth topic")
    buffer = _compressed_bytes(format_text, data)
    swapped = "compressed rgb" in format_text
    image = cv2.imdecode(buffer, (cv2.IMREAD_COLOR if swapped else _READ_RGB) | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ImageError(f"compressed image format '{format_text}', {buffer.size} bytes: the data is damaged")
    if swapped or _READ_RGB != cv2.IMREAD_COLOR:
        return np.asarray(image, dtype=np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), dtype=np.uint8)


def decode_depth(encoding: str, height: int, width: int, step: int, is_bigendian: bool,
                 data: Any) -> NDArray[np.float32]:
    """A depth image (REP-118: 32FC1 metres or 16UC1 millimetres) as (height, width) float32 metres.

    Returns:
        Metres along z; 0 where there is no reading (0, NaN, infinite or negative in the message).

    Raises:
        ImageError: Not a depth encoding, or size, step and length of the data do not fit.
    """
    if encoding not in DEPTH_ENCODINGS:
        raise ImageError(f"depth encoding '{encoding}' is not supported; supported: {', '.join(DEPTH_ENCODINGS)}")
    _check_size(height, width)
    layout = _Layout(1, "f4" if encoding == "32FC1" else "u2")
    return _clean_depth(_rows(data, height, width, step, layout, encoding, is_bigendian)[..., 0])


def decode_compressed_depth(format_text: str, data: Any) -> NDArray[np.float32]:
    """A 16-bit PNG of millimetres, bare or with the 12-byte header of `compressedDepth`, as float32 metres.

    With that header and "32FC1" the values are quantised inverse depths: z = a / (v - b).

    Raises:
        ImageError: Empty, damaged, not 16-bit gray, or too many pixels.
    """
    raw = np.frombuffer(data, np.uint8)
    parameters = None
    if "compressedDepth" in format_text:
        if raw.size <= 12:
            raise ImageError(f"compressed depth format '{format_text}': {raw.size} bytes; expected more than 12")
        parameters = raw[4:12].view("<f4") if "32FC1" in format_text else None
        raw = raw[12:]
    buffer = _compressed_bytes(format_text, raw)
    values = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    if values is None or values.ndim != 2 or values.dtype != np.uint16:
        got = "damaged data" if values is None else f"{values.dtype} {values.shape}"
        raise ImageError(f"compressed depth format '{format_text}': got {got}; expected a 16-bit gray PNG")
    if parameters is None:
        return _clean_depth(values)
    with np.errstate(divide="ignore"):
        return _clean_depth(np.where(values > 0, parameters[0] / (values - parameters[1]), 0.0))


def decode_message(message: Any) -> RGB:
    """sensor_msgs/Image or sensor_msgs/CompressedImage (any object with their fields) -> RGB."""
    if hasattr(message, "format"):
        return decode_compressed(message.format, message.data)
    return decode_image(message.encoding, message.height, message.width, message.step,
                        bool(message.is_bigendian), message.data)


def decode_depth_message(message: Any) -> NDArray[np.float32]:
    """Like `decode_message` for depth: metres."""
    if hasattr(message, "format"):
        return decode_compressed_depth(message.format, message.data)
    return decode_depth(message.encoding, message.height, message.width, message.step,
                        bool(message.is_bigendian), message.data)


def encode_jpeg(image: RGB, quality: int = 92) -> bytes:
    """(H, W, 3) RGB -> JPEG bytes."""
    _check_rgb(image)
    done, buffer = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError(f"image of shape {image.shape} cannot be coded as JPEG")
    return buffer.tobytes()


def encode_depth_png(depth_m: NDArray[np.floating]) -> bytes:
    """(H, W) metres along z -> 16-bit PNG of millimetres; no reading or beyond 65.535 m becomes 0."""
    mm = np.nan_to_num(np.asarray(depth_m, np.float64) * 1000.0, nan=0.0, posinf=0.0, neginf=0.0)
    mm = np.where((mm > 0.0) & (mm < 65535.5), np.rint(mm), 0.0).astype(np.uint16)
    done, buffer = cv2.imencode(".png", mm, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise ImageError(f"depth of shape {mm.shape} cannot be coded as PNG")
    return buffer.tobytes()


def _rows(data: Any, rows: int, width: int, step: int, layout: _Layout, encoding: str,
          is_bigendian: bool) -> NDArray[Any]:
    """View of the pixels, (rows, width, channels), in native byte order."""
    buffer = np.frombuffer(data, np.uint8)
    itemsize = int(layout.dtype[1])
    row_bytes = width * layout.channels * itemsize
    if step < row_bytes:
        raise ImageError(f"image step is {step} bytes; '{encoding}' of {width} px needs at least {row_bytes}")
    # The last row needs no padding; several drivers leave it out.
    needed = step * (rows - 1) + row_bytes
    if buffer.size < needed:
        raise ImageError(f"image data has {buffer.size} bytes; '{encoding}' with {rows} rows of step {step} "
                         f"needs {step * rows}")
    if buffer.size > step * rows:
        raise ImageError(f"image data has {buffer.size} bytes; '{encoding}' with {rows} rows of step {step} "
                         f"has only {step * rows}")
    view = np.lib.stride_tricks.as_strided(buffer, (rows, row_bytes), (step, 1), writeable=False)
    if itemsize == 1:
        return np.ascontiguousarray(view).reshape(rows, width, layout.channels)
    values = np.ascontiguousarray(view).view((">" if is_bigendian else "<") + layout.dtype)
    return values.astype(layout.dtype, copy=False).reshape(rows, width, layout.channels)


def _clean_depth(values: NDArray[Any]) -> NDArray[np.float32]:
    if values.dtype.kind == "u":
        return values.astype(np.float32) * np.float32(0.001)
    metres = values.astype(np.float32)
    return np.where(np.isfinite(metres) & (metres > 0.0), metres, np.float32(0.0))


def _check_size(height: int, width: int) -> None:
    if height <= 0 or width <= 0:
        raise ImageError(f"image is {width}x{height} px; expected at least 1x1")
    if height * width > MAX_PIXELS:
        raise ImageError(f"image is {width}x{height} px = {height * width}; the limit is {MAX_PIXELS} pixels")


def _check_rgb(image: NDArray[Any]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(f"image has shape {image.shape}, dtype {image.dtype}; expected (H, W, 3) uint8")
    _check_size(image.shape[0], image.shape[1])


def _compressed_bytes(format_text: str, data: Any) -> NDArray[np.uint8]:
    """The bytes, after the size in their header was checked: a small file may declare a huge image."""
    buffer = np.frombuffer(data, np.uint8)
    if buffer.size == 0:
        raise ImageError(f"compressed image format '{format_text}': no data")
    try:
        with PillowImage.open(io.BytesIO(buffer.tobytes())) as header:
            width, height = header.size
    except PillowImage.DecompressionBombError as error:
        raise ImageError(f"compressed image format '{format_text}': {error}; the limit is {MAX_PIXELS} "
                         "pixels") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"compressed image format '{format_text}', {buffer.size} bytes: neither JPEG nor PNG "
                         f"(first bytes {bytes(buffer[:4]).hex()})") from error
    _check_size(height, width)
    # Decoders fill the missing part of a cut file with gray and say nothing; the end marker tells.
    end = _END_MARKERS.get(bytes(buffer[:2]))
    if end is not None and end not in bytes(buffer):
        raise ImageError(f"compressed image format '{format_text}', {width}x{height} px: the data ends after "
                         f"{buffer.size} bytes without the end marker; it was cut")
    return buffer
