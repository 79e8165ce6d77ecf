"""Memory stays flat over a long replay of the real processes.

`SOAK_FRAMES=3000 ./env.sh python -m pytest test/nodes/test_memory.py` is the long run; its samples are printed
with `-s`. The default is short enough for every day and long enough to see a leak of one image per image.
"""

from __future__ import annotations

import os

import cv2
import pytest

pytest.importorskip("rclpy")

from ros_graph import graph, picture, untrained_checkpoint  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from human_scene_ros.msg import SceneStatus, SmplxBodyArray  # noqa: E402
from human_scene_ros.nodes import qos  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow]
DOMAIN = 37
FRAMES = int(os.environ.get("SOAK_FRAMES", "400"))
INPUT = os.environ.get("SOAK_INPUT", "")  # a recording instead of rendered noise
CHECKPOINT = os.environ.get("SOAK_CHECKPOINT", "")
GROWTH_MIB = 40.0


def rss_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) / 1024.0 for line in file if line.startswith("VmRSS"))


def test_memory_is_flat(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(60):
        shift = min(i, 60 - i)
        cv2.imwrite(str(images / f"{i:03d}.png"), picture(640, 480, shift=2 * shift)[..., ::-1])
    with graph(DOMAIN, tmp_path) as g:
        statuses = g.collect(SceneStatus, "human_scene/status", qos.latched(10))
        for topic, kind in (("bodies", SmplxBodyArray), ("cloud", PointCloud2)):
            g.node.create_subscription(kind, f"human_scene/{topic}", lambda message: None, 10)
        g.node.create_subscription(MarkerArray, "human_scene_markers/skeletons", lambda message: None, 10)
        node = g.start("reconstructor_node", {
            "model.checkpoint": CHECKPOINT or str(untrained_checkpoint(tmp_path)), "input.drop_policy": "all",
            "map.max_points": 20000, "tf.mode": "camera", "use_sim_time": True})
        markers = g.start("markers_node")
        node.wait_output("ready")
        bag = g.start("bag_node", {"input": INPUT or str(images), "rate": 0.0, "loop": True, "max_images": FRAMES,
                                   "wait_for_subscribers": 1})
        samples: list[tuple[int, float, float]] = []
        while not statuses or statuses[-1].frames_processed < FRAMES:
            done = statuses[-1].frames_processed if statuses else 0
            g.wait(lambda d=done: statuses and statuses[-1].frames_processed >= min(d + 50, FRAMES), "50 more images",
                   limit_s=300.0)
            samples.append((statuses[-1].frames_processed, rss_mib(node.pid), rss_mib(markers.pid)))
            print(f"{samples[-1][0]} images, reconstructor {samples[-1][1]:.1f} MiB, markers {samples[-1][2]:.1f} MiB")
            del statuses[:-1]
        last = statuses[-1]
        assert (last.frames_in, last.frames_dropped, last.frames_rejected) == (FRAMES, 0, 0)
        settled = next(s for s in samples if s[0] >= FRAMES // 3)
        for which in (1, 2):
            growth = max(s[which] for s in samples if s[0] > settled[0]) - settled[which]
            assert growth < GROWTH_MIB, f"grew by {growth:.1f} MiB: {samples}"
        assert bag.wait() == 0
