"""`human-scene bench pipeline | convert | fusion | sync | metrics`: where the milliseconds of one frame go.

`pipeline` sends rendered frames with people along the node's own route, one after the other in this process and on
one core: decode, undistort, every stage of the stream, map, convert, publish (to a subscriber in this process, when
ROS is there). `convert` times cloud packing and image decoding against `sensor_msgs_py` and `cv_bridge` where these
are importable, else against the plain per-point and per-row Python that they stand for.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import json
import resource
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.commands import bench_fusion, bench_metrics, bench_sync
from human_scene_ros.errors import ConfigError
from human_scene_ros.sources import image_codec, message_fields


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    pipeline = kinds.add_parser("pipeline", help="milliseconds per stage and peak memory")
    pipeline.add_argument("--frames", type=int, default=60, help="timed frames (default 60)")
    pipeline.add_argument("--size", default="640x480", help="size of the images (default 640x480)")
    pipeline.add_argument("--encoding", default="rgb8", choices=("rgb8", "bgr8", "mono8", "jpeg"),
                          help="how the images arrive (default rgb8)")
    pipeline.add_argument("--lens", action="store_true", help="with lens distortion in camera_info")
    pipeline.add_argument("--preset", default="nano", help="network preset (default nano)")
    pipeline.add_argument("--checkpoint", type=Path, help="weights (default: those that ship with the preset)")
    pipeline.add_argument("--engine", choices=("auto", "torch", "onnx"), default="auto",
                          help="what runs the network (default auto: the faster on this machine)")
    pipeline.add_argument("--device", default="auto", help="torch device (default auto)")
    convert = kinds.add_parser("convert", help="cloud packing and image decoding against the usual ways")
    convert.add_argument("--repeats", type=int, default=5, help="runs of each, the fastest counts (default 5)")
    bench_fusion.add_arguments(kinds.add_parser("fusion", help="people seen by several cameras: accuracy and time"))
    bench_sync.add_arguments(kinds.add_parser("sync", help="frames of several cameras into sets, beside "
                                                           "message_filters"))
    bench_metrics.add_arguments(kinds.add_parser("metrics", help="metrics and decoding, beside evo and motmetrics"))
    for kind in (pipeline, convert):
        kind.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.kind == "fusion":
        return bench_fusion.run(arguments)
    if arguments.kind == "sync":
        return bench_sync.run(arguments)
    if arguments.kind == "metrics":
        return bench_metrics.run(arguments)
    result = bench_pipeline(arguments) if arguments.kind == "pipeline" else bench_convert(arguments.repeats)
    if arguments.json:
        print(json.dumps(result))
    elif arguments.kind == "pipeline":
        _print_pipeline(result)
    else:
        for row in result["comparisons"]:
            print(f"{row['what']:38s} {row['ours_ms']:8.3f} ms  {row['against']:28s} {row['other_ms']:9.3f} ms  "
                  f"{row['ratio']:7.1f} x")
    return 0


# --- pipeline ----------------------------------------------------------------------------------------------------

MAP_RATE, CLOUD_RATE = 5.0, 10.0  # Hz of stamps, as in config/reconstructor.yaml


class Stages:
    """Wall and CPU milliseconds of named stages; CPU of this thread, so that a busy machine does not count."""

    def __init__(self) -> None:
        self.wall_ms: dict[str, list[float]] = {}
        self.cpu_ms: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.thread_time()
        yield
        self.add(name, (time.perf_counter() - wall) * 1e3, (time.thread_time() - cpu) * 1e3)

    def add(self, name: str, wall_ms: float, cpu_ms: float) -> None:
        """Add one measurement."""
        self.wall_ms.setdefault(name, []).append(wall_ms)
        self.cpu_ms.setdefault(name, []).append(cpu_ms)

    def clear(self) -> None:
        """Forget all; after warming up."""
        self.wall_ms.clear()
        self.cpu_ms.clear()


def bench_pipeline(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time the route; keys: stages_ms, ours_ms, network_ms, total_ms, peak_rss_mib and what was run.

    `ours` is everything but the network. Each entry holds `p50`, `p95` and `mean` of wall time and `cpu_p50`,
    `cpu_mean`. Images are 50 ms apart; map and cloud keep to the default rates of the node.
    """
    import cv2

    from human_scene_ros.mapping.voxel_map import VoxelMap
    from human_scene_ros.nodes.diagnostics import Throttle
    from human_scene_ros.runtime.engine import make_stream
    from human_scene_ros.scene import CameraFrame
    from human_scene_ros.sources.calibration import Calibration

    if arguments.frames < 2:
        raise ConfigError(f"--frames {arguments.frames}: need at least 2")
    width, height = _size(arguments.size)
    cv2.setNumThreads(1)  # the claim is about one core
    stream = make_stream(arguments.preset, arguments.checkpoint, None, arguments.device, 1,
                         engine=arguments.engine)
    world_map = VoxelMap()
    frames = _frames(8, width, height)
    warm_up = len(frames)
    stages = Stages()
    network = _timed_network(stream, stages)
    people, stamp_ns = 0, 0
    description = message_fields.BodyDescription()
    map_due, cloud_due = Throttle(), Throttle()
    with _publishers() as publish:
        for index in range(warm_up + arguments.frames):
            if index == warm_up:
                stages.clear()
                network.clear()
                people = 0
            stamp_ns += 50_000_000
            image, camera = frames[_back_and_forth(index, len(frames))]
            message = _Message(stamp_ns, image, arguments.encoding)
            info = _Info(camera, arguments.lens)
            with stages("decode"):
                decoded = image_codec.decode_message(message)
            with stages("undistort"):
                calibration = Calibration.from_message(info, decoded.shape[1], decoded.shape[0])
                assert calibration is not None  # the camera is calibrated
                frame = CameraFrame(stamp_ns, calibration.undistorted(decoded), "optical", calibration.camera)
            with stages("step"):
                estimate = stream.step(frame)
            with stages("map"):
                if map_due.due(stamp_ns, MAP_RATE):
                    world_map.add(estimate)
            for name, milliseconds in estimate.stage_ms.items():
                stages.add(f"step.{name}", milliseconds, float("nan"))
            with stages("fields"):
                fields = _fields(estimate, description, index, cloud_due.due(stamp_ns, CLOUD_RATE))
            publish(fields, stages)
            people += len(estimate.bodies)
    wall, cpu = stages.wall_ms, stages.cpu_ms
    parts = [name for name in wall if "." not in name]
    total, total_cpu = (np.sum([values[name] for name in parts], axis=0) for values in (wall, cpu))
    network_wall, network_cpu = np.array(network.wall_ms["network"]), np.array(network.cpu_ms["network"])
    weights = stream.weights
    return {
        "size": [width, height], "encoding": arguments.encoding, "lens": arguments.lens, "frames": arguments.frames,
        "people_per_frame": people / arguments.frames, "preset": arguments.preset,
        "engine": stream.engine_name,
        "weights": {"name": weights.name, "sha256": weights.sha256, "note": weights.note} if weights else None,
        "published": "ros" if "publish" in wall else "not measured: rclpy is not importable",
        "stages_ms": {name: _summary(wall[name], cpu[name]) for name in sorted(wall)},
        "network_ms": _summary(network_wall, network_cpu),
        "ours_ms": _summary(total - network_wall, total_cpu - network_cpu),
        "total_ms": _summary(total, total_cpu),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
    }


def _timed_network(stream: Any, stages: Stages) -> Stages:
    """Times what the stream calls the network stage, in wall and CPU time."""
    own = Stages()
    run_network = stream._run_network

    def timed(*args: Any) -> Any:
        with own("network"):
            return run_network(*args)

    stream._run_network = timed
    return own


def _fields(estimate: Any, description: message_fields.BodyDescription, sequence: int,
            cloud: bool) -> dict[str, Any]:
    """What the node says about one frame to a recorder or RViz: bodies, pose, TF, and the cloud when it is due."""
    stamp_ns, camera_frame, world = estimate.stamp_ns, "optical", "map"
    fields = {
        "bodies": message_fields.body_array_fields(estimate, description, camera_frame=camera_frame,
                                                   camera_name="camera", sequence=sequence, world_frame=world),
        "camera_pose": message_fields.pose_with_covariance_stamped_fields(stamp_ns, world, estimate.T_world_camera),
        "tf": message_fields.transforms_fields([(stamp_ns, world, camera_frame, estimate.T_world_camera)]),
    }
    if cloud:
        fields["cloud"] = message_fields.scene_cloud_fields(estimate, camera_frame, message_fields.CloudOptions())
    return fields


@contextlib.contextmanager
def _publishers() -> Iterator[Callable[[dict[str, Any], Stages], None]]:
    """A function that fills and publishes fields; without ROS one that does nothing."""
    if importlib.util.find_spec("rclpy") is None:
        yield lambda fields, stages: None
        return
    import rclpy
    from geometry_msgs.msg import PoseWithCovarianceStamped
    from sensor_msgs.msg import PointCloud2
    from tf2_msgs.msg import TFMessage

    from human_scene_ros.msg import SmplxBodyArray
    from human_scene_ros.nodes.convert import fill

    classes = {"bodies": SmplxBodyArray, "camera_pose": PoseWithCovarianceStamped, "cloud": PointCloud2,
               "tf": TFMessage}
    context = rclpy.Context()
    rclpy.init(context=context, args=[])
    node = rclpy.create_node("human_scene_bench", context=context)
    publishers = {name: node.create_publisher(kind, f"~/{name}", 1) for name, kind in classes.items()}
    for name, kind in classes.items():  # matched, so that publishing really serialises and sends
        node.create_subscription(kind, f"~/{name}", lambda message: None, 1)
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline and not all(p.get_subscription_count() for p in publishers.values()):
        time.sleep(0.02)

    def publish(fields: dict[str, Any], stages: Stages) -> None:
        with stages("convert"):
            messages = {name: fill(classes[name](), values) for name, values in fields.items()}
        with stages("publish"):
            for name, message in messages.items():
                publishers[name].publish(message)

    try:
        yield publish
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


def _frames(count: int, width: int, height: int) -> list[tuple[NDArray[np.uint8], Any]]:
    """Consecutive images of a synthetic world with people, and their camera."""
    import cv2

    from human_scene_ros.synthetic.world import SyntheticWorld, WorldConfig

    config = WorldConfig(width=width // 2, height=height // 2, num_frames=count)
    for seed in range(100):
        world = SyntheticWorld(seed, config)
        frames = [world.frame(i) for i in range(count)]
        if min(len(frame.people) for frame in frames) >= 2:
            break
    return [(cv2.resize(f.image, (width, height)), f.camera.resized(width, height)) for f in frames]


def _back_and_forth(index: int, count: int) -> int:
    """0, 1, ..., n - 1, n - 2, ..., 1, 0, ...: a walk through the frames without a jump."""
    position = index % (2 * count - 2)
    return min(position, 2 * count - 2 - position)


@dataclasses.dataclass
class _Stamp:
    sec: int
    nanosec: int


class _Message:
    """The fields of sensor_msgs/Image or CompressedImage, as they arrive."""

    def __init__(self, stamp_ns: int, image: NDArray[np.uint8], encoding: str) -> None:
        self.stamp = _Stamp(*divmod(stamp_ns, 10**9))
        self.height, self.width = image.shape[:2]
        if encoding == "jpeg":
            self.format, self.data = "jpeg", image_codec.encode_jpeg(image)
            return
        pixels = {"rgb8": image, "bgr8": image[..., ::-1], "mono8": image[..., 1]}[encoding]
        self.encoding, self.is_bigendian = encoding, 0
        self.step = pixels.size // self.height
        self.data = np.ascontiguousarray(pixels).tobytes()


class _Info:
    """The fields of sensor_msgs/CameraInfo, on request with the lens of a usual webcam."""

    def __init__(self, camera: Any, lens: bool) -> None:
        fields = message_fields.camera_info_fields(0, "optical", camera)
        if lens:
            fields["d"] = np.array([-0.1, 0.05, 0.0, 0.0, 0.0])
        self.__dict__.update(fields)
        self.roi = argparse.Namespace(**fields["roi"])


def _summary(wall_ms: Any, cpu_ms: Any) -> dict[str, float]:
    values = {"p50": float(np.percentile(wall_ms, 50)), "p95": float(np.percentile(wall_ms, 95)),
              "mean": float(np.mean(wall_ms))}
    if np.isfinite(cpu_ms).all():
        values |= {"cpu_p50": float(np.percentile(cpu_ms, 50)), "cpu_mean": float(np.mean(cpu_ms))}
    return {name: round(value, 3) for name, value in values.items()}


def _print_pipeline(result: dict[str, Any]) -> None:
    print(f"{result['size'][0]}x{result['size'][1]} {result['encoding']}, {result['frames']} frames, "
          f"{result['people_per_frame']:.1f} people per frame, {result['weights']['name']}")
    rows = {**result["stages_ms"], "network": result["network_ms"], "all but the network": result["ours_ms"],
            "total": result["total_ms"]}
    print(f"{'stage':22s} {'p50 ms':>8s} {'p95 ms':>8s} {'cpu p50':>8s}")
    for name, values in rows.items():
        cpu = f"{values['cpu_p50']:8.2f}" if "cpu_p50" in values else ""
        print(f"{name:22s} {values['p50']:8.2f} {values['p95']:8.2f} {cpu}")
    print(f"peak memory {result['peak_rss_mib']:.0f} MiB")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 64 and int(height) >= 64):
        raise ConfigError(f"--size {text}: expected WIDTHxHEIGHT of at least 64x64 such as 640x480")
    return int(width), int(height)


# --- convert -----------------------------------------------------------------------------------------------------

def bench_convert(repeats: int) -> dict[str, Any]:
    """Our conversions against the usual ones, in the same run on the same data."""
    rng = np.random.default_rng(0)
    rows = []
    for points in (20_000, 150_000):
        xyz = rng.random((points, 3), np.float32)
        colors = rng.integers(0, 255, (points, 3), np.uint8)
        other, name = _cloud_packer()
        rows.append(_compare(f"pack a cloud of {points} points", functools.partial(_pack_cloud, xyz, colors),
                             name, functools.partial(other, xyz, colors), repeats))
    image = rng.integers(0, 255, (480, 640, 3), np.uint8)
    padded = np.zeros((480, 2048), np.uint8)
    padded[:, :1920] = image.reshape(480, 1920)
    for encoding, data, step in (("bgr8", image.tobytes(), 1920), ("rgb8", padded.tobytes(), 2048)):
        decoder, name = _image_decoder()
        rows.append(_compare(
            f"decode 640x480 {encoding}, step {step}",
            functools.partial(image_codec.decode_image, encoding, 480, 640, step, False, data),
            name, functools.partial(decoder, encoding, data, step), repeats))
    return {"repeats": repeats, "comparisons": rows}


def _compare(what: str, ours: Callable[[], Any], against: str, other: Callable[[], Any],
             repeats: int) -> dict[str, Any]:
    ours_ms, other_ms = _fastest_ms(ours, repeats), _fastest_ms(other, min(repeats, 3))
    return {"what": what, "ours_ms": round(ours_ms, 4), "against": against, "other_ms": round(other_ms, 4),
            "ratio": round(other_ms / ours_ms, 2)}


def _fastest_ms(function: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(max(repeats, 1)):
        begun = time.perf_counter()
        function()
        times.append(time.perf_counter() - begun)
    return min(times) * 1e3


def _pack_cloud(xyz: NDArray[np.float32], colors: NDArray[np.uint8]) -> Any:
    fields = message_fields.point_cloud_fields(0, "map", xyz, colors)
    if importlib.util.find_spec("rclpy") is None:
        return fields
    from sensor_msgs.msg import PointCloud2

    from human_scene_ros.nodes.convert import fill

    return fill(PointCloud2(), fields)


def _cloud_packer() -> tuple[Callable[[Any, Any], Any], str]:
    if importlib.util.find_spec("sensor_msgs_py") is not None:
        return _pack_with_sensor_msgs_py, "sensor_msgs_py.create_cloud"
    return _pack_point_by_point, "struct.pack per point"


def _pack_with_sensor_msgs_py(xyz: NDArray[np.float32], colors: NDArray[np.uint8]) -> Any:
    from sensor_msgs.msg import PointField
    from std_msgs.msg import Header

    point_cloud2 = importlib.import_module("sensor_msgs_py.point_cloud2")  # a peer: only where it is installed

    names = ("x", "y", "z", "rgb")
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate(names)]
    packed = (colors[:, 0].astype(np.uint32) << 16) | (colors[:, 1].astype(np.uint32) << 8) | colors[:, 2]
    return point_cloud2.create_cloud(Header(frame_id="map"), fields,
                                     np.column_stack([xyz, packed.view(np.float32)]))


def _pack_point_by_point(xyz: NDArray[np.float32], colors: NDArray[np.uint8]) -> bytes:
    return b"".join(struct.pack("<fffBBBB", x, y, z, b, g, r, 0)
                    for (x, y, z), (r, g, b) in zip(xyz.tolist(), colors.tolist(), strict=True))


def _image_decoder() -> tuple[Callable[[str, bytes, int], Any], str]:
    if importlib.util.find_spec("cv_bridge") is not None:
        return _decode_with_cv_bridge, "cv_bridge.imgmsg_to_cv2"
    return _decode_row_by_row, "frombuffer per row"


def _decode_with_cv_bridge(encoding: str, data: bytes, step: int) -> Any:
    from sensor_msgs.msg import Image

    from human_scene_ros.nodes.convert import fill

    message = fill(Image(), {"height": 480, "width": 640, "encoding": encoding, "step": step, "data": data})
    return importlib.import_module("cv_bridge").CvBridge().imgmsg_to_cv2(message, "rgb8")


def _decode_row_by_row(encoding: str, data: bytes, step: int) -> NDArray[np.uint8]:
    image = np.empty((480, 640, 3), np.uint8)
    order = [2, 1, 0] if encoding == "bgr8" else [0, 1, 2]
    for row in range(480):
        pixels = np.frombuffer(data[row * step : row * step + 1920], np.uint8).reshape(640, 3)
        image[row] = pixels[:, order]
    return image
