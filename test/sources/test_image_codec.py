"""Every encoding against bytes that are laid out here pixel by pixel, and the errors of bytes that lie."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from human_scene_ros.errors import ImageError
from human_scene_ros.sources.image_codec import (
    IMAGE_ENCODINGS,
    decode_compressed,
    decode_compressed_depth,
    decode_depth,
    decode_image,
    encode_depth_png,
    encode_jpeg,
)

WIDTH, HEIGHT = 6, 4
PAD = b"\xab" * 5  # at the end of each row; must not be seen in the image


def random_rgb(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rows_of(pixels: list[list[bytes]], pad: bytes = PAD) -> tuple[bytes, int]:
    rows = [b"".join(row) for row in pixels]
    return b"".join(row + pad for row in rows), len(rows[0]) + len(pad)


ORDERS = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "8UC3": (2, 1, 0), "rgba8": (0, 1, 2, None), "bgra8": (2, 1, 0, None),
          "8UC4": (2, 1, 0, None)}


@pytest.mark.parametrize("encoding", ORDERS)
@pytest.mark.parametrize("pad", [b"", PAD])
@pytest.mark.parametrize("width", [1, 5, 6])
def test_packed_8_bit(encoding: str, pad: bytes, width: int) -> None:
    image = random_rgb(width=width)
    pixels = [[bytes(7 if c is None else int(pixel[c]) for c in ORDERS[encoding]) for pixel in row] for row in image]
    data, step = rows_of(pixels, pad)
    np.testing.assert_array_equal(decode_image(encoding, HEIGHT, width, step, False, data), image)


@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "16UC3", "rgba16", "bgra16", "16UC4"])
@pytest.mark.parametrize("big", [False, True])
def test_packed_16_bit_honours_byte_order(encoding: str, big: bool) -> None:
    image = random_rgb(1)
    order = ORDERS[encoding.replace("16UC", "8UC") if "UC" in encoding else encoding.replace("16", "8")]
    code = (">" if big else "<") + "H" * len(order)
    pixels = [[struct.pack(code, *(9 if c is None else int(pixel[c]) * 257 for c in order)) for pixel in row]
              for row in image]
    data, step = rows_of(pixels)
    np.testing.assert_array_equal(decode_image(encoding, HEIGHT, WIDTH, step, big, data), image)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_mono8(encoding: str) -> None:
    gray = random_rgb(2)[..., 0]
    data, step = rows_of([[bytes([int(v)]) for v in row] for row in gray])
    np.testing.assert_array_equal(decode_image(encoding, HEIGHT, WIDTH, step, False, data),
                                  np.repeat(gray[..., None], 3, axis=2))


@pytest.mark.parametrize("encoding", ["mono16", "16UC1"])
@pytest.mark.parametrize("big", [False, True])
def test_mono16_rounds_to_8_bits(encoding: str, big: bool) -> None:
    values = [[0, 128, 129, 257, 385, 386], [65535, 65406, 65407, 1000, 32768, 40000]]
    data, step = rows_of([[struct.pack(">H" if big else "<H", v) for v in row] for row in values])
    expected = np.array([[int(v / 257 + 0.5) for v in row] for row in values], np.uint8)
    np.testing.assert_array_equal(decode_image(encoding, 2, WIDTH, step, big, data)[..., 1], expected)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_of_a_plain_colour_is_that_colour(pattern: str, bits: int) -> None:
    """A wrong pattern would swap channels; the pattern is spelled out row by row as sensor_msgs defines it."""
    colour = {"r": 200, "g": 90, "b": 30}
    scale = 1 if bits == 8 else 257
    pixels = [[struct.pack("<B" if bits == 8 else "<H", colour[pattern[2 * (y % 2) + x % 2]] * scale)
               for x in range(8)] for y in range(6)]
    data, step = rows_of(pixels)
    image = decode_image(f"bayer_{pattern}{bits}", 6, 8, step, False, data)
    np.testing.assert_array_equal(image, np.broadcast_to(np.array([200, 90, 30], np.uint8), (6, 8, 3)))


def rgb_from_yuv(y: int, u: int, v: int) -> list[float]:
    """BT.601 with 16..235 luma (ITU-R BT.601-7)."""
    luma = 255 / 219 * (y - 16)
    return [min(max(c, 0.0), 255.0) for c in (luma + 1.596 * (v - 128), luma - 0.392 * (u - 128) - 0.813 * (v - 128),
                                              luma + 2.017 * (u - 128))]


def yuv_case(seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luma (4, 6) and chroma per pair of columns, equal in both rows of each pair so that it fits 4:2:0 too."""
    rng = np.random.default_rng(seed)
    luma = rng.integers(16, 236, (HEIGHT, WIDTH))
    chroma = rng.integers(60, 200, (2, HEIGHT // 2, WIDTH // 2)).repeat(2, axis=1)
    return luma, chroma[0], chroma[1]


def expected_yuv(luma: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.array([[rgb_from_yuv(luma[y, x], u[y, x // 2], v[y, x // 2]) for x in range(WIDTH)]
                     for y in range(HEIGHT)])


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", "UYVY"), ("uyvy", "UYVY"), ("yuv422_yuy2", "YUYV"),
                                                 ("yuyv", "YUYV"), ("UYVY", "UYVY")])
def test_yuv422(encoding: str, order: str) -> None:
    luma, u, v = yuv_case()
    pixels = []
    for y in range(HEIGHT):
        row = []
        for pair in range(WIDTH // 2):
            ys = [int(luma[y, 2 * pair]), int(luma[y, 2 * pair + 1])]
            named = {"U": [int(u[y, pair])], "V": [int(v[y, pair])], "Y": ys}
            row.append(bytes(named[letter].pop(0) for letter in order))
        pixels.append(row)
    data, step = rows_of(pixels, b"\xab" * 4)
    image = decode_image(encoding, HEIGHT, WIDTH, step, False, data)
    np.testing.assert_allclose(image, expected_yuv(luma, u, v), atol=2.0)


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
@pytest.mark.parametrize("pad", [b"", b"\xab" * 2])
def test_nv12_and_nv21(encoding: str, pad: bytes) -> None:
    luma, u, v = yuv_case()
    rows = [b"".join(bytes([int(value)]) for value in row) + pad for row in luma]
    first, second = (u, v) if encoding == "nv12" else (v, u)
    for y in range(0, HEIGHT, 2):
        rows.append(b"".join(bytes([int(a), int(b)]) for a, b in zip(first[y], second[y], strict=True)) + pad)
    image = decode_image(encoding, HEIGHT, WIDTH, WIDTH + len(pad), False, b"".join(rows))
    np.testing.assert_allclose(image, expected_yuv(luma, u, v), atol=2.0)


def test_every_encoding_of_the_list_is_tested_here() -> None:
    tested = set(ORDERS) | {"rgb16", "bgr16", "16UC3", "rgba16", "bgra16", "16UC4", "mono8", "8UC1", "mono16", "16UC1",
                            "yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"}
    tested |= {f"bayer_{p}{b}" for p in ("rggb", "bggr", "gbrg", "grbg") for b in (8, 16)}
    assert set(IMAGE_ENCODINGS) == tested


def test_result_is_its_own_memory() -> None:
    data = bytearray(random_rgb().tobytes())
    image = decode_image("rgb8", HEIGHT, WIDTH, WIDTH * 3, False, data)
    before = image.copy()
    data[:] = bytes(len(data))
    np.testing.assert_array_equal(image, before)
    image[0, 0] = 1  # writable


def test_last_row_may_lack_its_padding() -> None:
    image = random_rgb()
    data, step = rows_of([[pixel.tobytes() for pixel in row] for row in image])
    np.testing.assert_array_equal(decode_image("rgb8", HEIGHT, WIDTH, step, False, data[:-len(PAD)]), image)


@pytest.mark.parametrize(("arguments", "text"), [
    (("rgb9", 4, 6, 18, bytes(72)), r"image encoding 'rgb9' is not supported; supported: .*rgb8"),
    (("32FC1", 4, 6, 24, bytes(96)), r"'32FC1' is not supported.*depth"),
    (("rgb8", 4, 6, 17, bytes(72)), r"step is 17 bytes; 'rgb8' of 6 px needs at least 18"),
    (("rgb8", 4, 6, 0, bytes(72)), r"step is 0 bytes"),
    (("rgb8", 4, 6, 18, bytes(71)), r"data has 71 bytes; 'rgb8' with 4 rows of step 18 needs 72"),
    (("rgb8", 4, 6, 18, bytes(73)), r"data has 73 bytes; 'rgb8' with 4 rows of step 18 has only 72"),
    (("rgb8", 4, 6, 18, b""), r"data has 0 bytes"),
    (("rgb8", 0, 6, 18, b""), r"image is 6x0 px; expected at least 1x1"),
    (("rgb8", 4, 0, 0, b""), r"image is 0x4 px"),
    (("mono8", 100_000, 100_000, 100_000, bytes(10)), r"100000x100000 px = 10000000000; the limit is 64000000"),
    (("yuv422", 4, 5, 10, bytes(40)), r"5x4 px in 'yuv422': .* even width"),
    (("nv12", 3, 6, 6, bytes(27)), r"6x3 px in 'nv12': .* even width and height"),
    (("bayer_rggb8", 3, 6, 6, bytes(18)), r"even width and height"),
    (("nv12", 4, 6, 6, bytes(24)), r"data has 24 bytes; 'nv12' with 6 rows of step 6 needs 36"),
])
def test_bytes_that_do_not_fit_are_refused(arguments: tuple, text: str) -> None:
    encoding, height, width, step, data = arguments
    with pytest.raises(ImageError, match=text):
        decode_image(encoding, height, width, step, False, data)


def smooth_rgb() -> np.ndarray:
    y, x = np.mgrid[0:32, 0:48]
    return np.stack([4 * x, 7 * y, 255 - 5 * x], axis=-1).astype(np.uint8)


def pillow_bytes(image: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def test_compressed_images() -> None:
    image = smooth_rgb()
    jpeg = pillow_bytes(image, "JPEG", quality=98, subsampling=0)
    assert np.abs(decode_compressed("jpeg", jpeg).astype(int) - image).max() <= 6
    np.testing.assert_array_equal(decode_compressed("rgb8; png compressed bgr8", pillow_bytes(image, "PNG")), image)
    np.testing.assert_array_equal(decode_compressed("rgb8; png compressed rgb8", pillow_bytes(image, "PNG")),
                                  image[..., ::-1])
    gray = decode_compressed("mono8; jpeg compressed ", pillow_bytes(image[..., 0], "JPEG", quality=98))
    assert gray.shape == image.shape and np.abs(gray[..., 1].astype(int) - image[..., 0]).max() <= 6
    np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(encode_jpeg(image, 98)))).astype(int), image, atol=12)


def test_padding_after_the_jpeg_is_allowed() -> None:
    jpeg = pillow_bytes(smooth_rgb(), "JPEG")
    np.testing.assert_array_equal(decode_compressed("jpeg", jpeg + bytes(100)), decode_compressed("jpeg", jpeg))


def png_that_declares(width: int, height: int) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [head, b"IDAT" + zlib.compress(b""), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)


@pytest.mark.parametrize(("data", "text"), [
    (b"", "no data"),
    (b"GIF no image at all", r"neither JPEG nor PNG \(first bytes 47494620\)"),
    (pillow_bytes(smooth_rgb(), "JPEG")[:-20], "was cut"),
    (pillow_bytes(smooth_rgb(), "PNG")[:-60], "was cut"),
    (png_that_declares(9000, 9000), r"9000x9000 px = 81000000; the limit is 64000000"),
    (png_that_declares(100_000, 100_000), "limit"),
])
def test_compressed_data_that_cannot_be_used_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(ImageError, match=text):
        decode_compressed("jpeg", data)


@pytest.mark.parametrize("big", [False, True])
def test_depth_in_metres(big: bool) -> None:
    order = ">" if big else "<"
    metres = [[0.5, float("nan"), -1.0], [0.0, float("inf"), 12.25]]
    data, step = rows_of([[struct.pack(order + "f", v) for v in row] for row in metres])
    np.testing.assert_array_equal(decode_depth("32FC1", 2, 3, step, big, data), [[0.5, 0, 0], [0, 0, 12.25]])
    mm = [[500, 0, 1], [65535, 1234, 2000]]
    data, step = rows_of([[struct.pack(order + "H", v) for v in row] for row in mm])
    np.testing.assert_allclose(decode_depth("16UC1", 2, 3, step, big, data), np.array(mm) / 1000, rtol=1e-6)


def test_depth_of_a_colour_encoding_is_refused() -> None:
    with pytest.raises(ImageError, match="depth encoding 'rgb8' is not supported; supported: 16UC1, 32FC1"):
        decode_depth("rgb8", 4, 6, 18, False, bytes(72))


def test_compressed_depth() -> None:
    depth = np.array([[0.0, 1.5, 65.535], [70.0, 0.0004, np.nan]])
    png = encode_depth_png(depth)
    assert np.asarray(Image.open(io.BytesIO(png))).tolist() == [[0, 1500, 65535], [0, 0, 0]]
    expected = np.array([[0, 1.5, 65.535], [0, 0, 0]])
    np.testing.assert_allclose(decode_compressed_depth("16UC1; png compressed", png), expected, rtol=1e-6)
    header = struct.pack("<iff", 0, 0.0, 0.0)
    np.testing.assert_allclose(decode_compressed_depth("16UC1; compressedDepth png", header + png), expected, rtol=1e-6)
    # compressed_depth_image_transport: value = a / z + b
    a, b = 1000.0, 3.0
    coded = pillow_bytes(np.array([[0, 503], [253, 0]], np.uint16), "PNG")
    decoded = decode_compressed_depth("32FC1; compressedDepth png", struct.pack("<iff", 0, a, b) + coded)
    np.testing.assert_allclose(decoded, [[0, 2.0], [4.0, 0]], rtol=1e-6)
    with pytest.raises(ImageError, match=r"got uint8 .*; expected a 16-bit gray PNG"):
        decode_compressed_depth("16UC1; png", pillow_bytes(smooth_rgb()[..., 0], "PNG"))
    with pytest.raises(ImageError, match="is a depth image"):
        decode_compressed("16UC1; compressedDepth png", header + png)
