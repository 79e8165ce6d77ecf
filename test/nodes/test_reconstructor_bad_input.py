"""Bad input through the real reconstructor process: a clear word with both values, and the node goes on.

One live node serves all cases that it survives; each case counts from where the last one ended. The weights are
random: what is seen does not matter here, what is said and counted does.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from ros_graph import Graph, graph, image_message, picture, untrained_checkpoint  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from human_scene_ros.geometry.camera import PinholeCamera  # noqa: E402
from human_scene_ros.msg import SceneStatus, SmplxBodyArray  # noqa: E402
from human_scene_ros.nodes import qos  # noqa: E402
from human_scene_ros.nodes.convert import fill  # noqa: E402
from human_scene_ros.sources.message_fields import camera_info_fields  # noqa: E402

pytestmark = pytest.mark.ros
DOMAIN = 32
MS = 1_000_000


@dataclasses.dataclass
class Live:
    """A running reconstructor in live mode, and what it says."""

    graph: Graph
    image: Any
    info: Any
    bodies: list[SmplxBodyArray]
    statuses: list[SceneStatus]
    diagnostics: list[DiagnosticArray]
    stamp_ns: int = 10**12

    def next_stamp(self) -> int:
        self.stamp_ns += 33 * MS
        return self.stamp_ns

    @property
    def status(self) -> SceneStatus:
        return self.statuses[-1]

    def send(self, message: Image) -> int:
        """Send one image and wait until it is done with; the number of bodies arrays it gave."""
        done, bodies = self.done, len(self.bodies)
        self.image.publish(message)
        self.graph.wait(lambda: self.done > done, "the image to be counted")
        assert_adds_up(self.status)
        if self.status.frames_rejected + self.status.frames_dropped == self._refused_before:
            self.graph.wait(lambda: len(self.bodies) > bodies, "bodies of the image")
        self._refused_before = self.status.frames_rejected + self.status.frames_dropped
        return len(self.bodies) - bodies

    _refused_before: int = 0

    @property
    def done(self) -> int:
        if not self.statuses:
            return 0
        s = self.status
        return s.frames_processed + s.frames_rejected + s.frames_dropped

    def good(self, **kwargs: Any) -> SmplxBodyArray:
        """One ordinary image goes through; whatever came before did not break the node."""
        assert self.send(image_message(self.next_stamp(), picture(**kwargs))) == 1
        return self.bodies[-1]

    def problem(self, *words: str) -> str:
        """Wait until a diagnostics line that is not OK holds all words."""

        def find() -> str:
            for message in reversed(self.diagnostics[-3:]):
                for line in message.status:
                    if line.level != b"\x00" and all(word in line.message for word in words):
                        return line.message
            return ""

        return self.graph.wait(find, f"a diagnostics line with {words}; newest: "
                               f"{[line.message for line in self.diagnostics[-1].status] if self.diagnostics else []}")


def assert_adds_up(s: SceneStatus) -> None:
    assert s.frames_in == s.frames_processed + s.frames_dropped + s.frames_rejected + s.frames_pending


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    with graph(DOMAIN, folder) as g:
        process = g.start("reconstructor_node", {
            "model.checkpoint": str(untrained_checkpoint(folder)), "diagnostics.period": 0.2,
            "input.silence_warning": 1.0, "input.drop_policy": "all", "input.max_gap": 0.0},
            {"image": "cam/image", "camera_info": "cam/camera_info"})
        live = Live(g, g.publisher(Image, "cam/image"), g.publisher(CameraInfo, "cam/camera_info"),
                    g.collect(SmplxBodyArray, "human_scene/bodies"),
                    g.collect(SceneStatus, "human_scene/status", qos.latched(10)),
                    g.collect(DiagnosticArray, "/diagnostics"))
        process.wait_output("ready")
        g.wait(lambda: live.image.get_subscription_count() and live.info.get_subscription_count() and live.statuses,
               "the reconstructor to be matched")
        yield live
        assert process.running, process.output


def info_message(width: int = 160, height: int = 112, **changes: Any) -> CameraInfo:
    return fill(CameraInfo(), {**camera_info_fields(0, "optical", PinholeCamera.from_fov(width, height, 60.0)),
                               **changes})


def test_missing_camera_info_is_said_and_the_image_processed(live):
    bodies = live.good()
    assert not bodies.calibrated and bodies.header.frame_id == "optical" and bodies.width == 160
    live.problem("no camera_info on /cam/camera_info")


def test_silence_names_topic_and_qos(live):
    text = live.problem("no image for", "/cam/image", "asked: reliable", "offered: /test_node: reliable")
    assert "s on" in text
    live.good()


@pytest.mark.parametrize(("changes", "words"), [
    ({"encoding": "rgba32"}, ("rgba32",)),
    ({"step": 100}, ("100", "480")),
    ({"data": np.zeros(777, np.uint8)}, ("777", "53760")),
    ({"width": 0, "step": 0, "data": np.zeros(0, np.uint8)}, ("0x112",)),
    ({"height": 0, "data": np.zeros(0, np.uint8)}, ("160x0",)),
    ({"width": 200_000, "height": 200_000, "step": 600_000}, ("200000x200000",)),
], ids=["encoding", "step", "length", "no width", "no height", "huge"])
def test_bad_images_are_rejected_with_both_values(live, changes, words):
    rejected = live.status.frames_rejected
    message = fill(image_message(live.next_stamp(), picture()), changes)
    assert live.send(message) == 0
    assert live.status.frames_rejected == rejected + 1
    live.problem("ImageError", *words)
    live.good()


def test_padded_rows_and_other_encodings_pass(live):
    wide = np.zeros((112, 200, 3), np.uint8)
    wide[:, :160] = picture()
    message = fill(image_message(live.next_stamp(), wide), {"width": 160})
    assert live.send(message) == 1
    assert live.send(image_message(live.next_stamp(), picture()[..., 0], "mono8")) == 1
    assert live.send(image_message(live.next_stamp(), picture()[..., 0].astype(">u2") * 257, "mono16")) == 1


def test_camera_info_is_used_and_bad_ones_are_named(live):
    def with_info(info: CameraInfo) -> SmplxBodyArray:
        live.info.publish(info)
        for _ in range(20):  # image and camera_info travel separately
            bodies = live.good()
            if bodies.calibrated == expected:
                break
        return bodies

    expected = True
    fx = info_message().k[0]
    assert with_info(info_message()).intrinsics[0] == pytest.approx(fx)
    expected = False
    assert not with_info(info_message(k=np.full(9, np.nan))).calibrated
    live.problem("fx = nan", "must be finite")
    live.info.publish(info_message(320, 240))
    live.good()
    live.problem("320x240", "160x112")
    live.info.publish(info_message(k=np.zeros(9)))
    live.good()
    live.problem("uncalibrated")
    expected = True
    assert with_info(info_message()).calibrated
    live.graph.wait(lambda: all("320x240" not in line.message for line in live.diagnostics[-1].status), "recovery")


def test_stamps_that_go_back_start_a_new_segment(live):
    first = live.good()
    live.stamp_ns -= 50 * 33 * MS
    second = live.good()
    third = live.good()
    assert (second.segment, third.segment) == (first.segment + 1, first.segment + 1)
    assert live.status.segment == second.segment


def test_reset_and_pause_services(live):
    segment = live.good().segment
    answer = live.graph.call(Trigger, "human_scene/reset", Trigger.Request())
    assert answer.success and answer.message == f"segment {segment + 1}"
    assert live.good().segment == segment + 1
    assert live.graph.call(SetBool, "human_scene/pause", SetBool.Request(data=True)).success
    live.graph.wait(lambda: live.status.state == SceneStatus.STATE_PAUSED, "the paused state")
    dropped = live.status.frames_dropped
    live.image.publish(image_message(live.next_stamp(), picture()))
    live.graph.wait(lambda: live.status.frames_dropped == dropped + 1, "the image to be counted while paused")
    assert live.graph.call(SetBool, "human_scene/pause", SetBool.Request(data=False)).success
    live._refused_before = live.status.frames_dropped + live.status.frames_rejected
    assert live.good().segment == segment + 1


def test_parameters_out_of_range_unknown_and_read_only_are_refused(live):
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    def set_one(name: str, value: float) -> Any:
        parameter = Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value))
        request = SetParameters.Request(parameters=[parameter])
        return live.graph.call(SetParameters, "human_scene/set_parameters", request).results[0]

    assert set_one("bodies.min_score", 0.9).successful
    refused = set_one("bodies.min_score", 1.5)
    assert not refused.successful and "1.5" in refused.reason and "1.0" in refused.reason
    assert not set_one("bodies.min_scroe", 0.5).successful
    refused = set_one("map.voxel", 0.1)
    assert not refused.successful and "read-only" in refused.reason
    live.good()


def test_a_picture_of_nothing_gives_an_empty_array_not_silence(live):
    assert live.send(image_message(live.next_stamp(), np.zeros((112, 160, 3), np.uint8))) == 1
    assert live.bodies[-1].status in (SmplxBodyArray.STATUS_OK, SmplxBodyArray.STATUS_LOW_TEXTURE,
                                      SmplxBodyArray.STATUS_LOST)


def test_image_sizes_may_change(live):
    assert live.good(width=320, height=240).width == 320
    assert live.good(width=96, height=160).height == 160
    assert live.send(image_message(live.next_stamp(), np.zeros((8, 8, 3), np.uint8))) == 0  # too small
    live.problem("8x8")
    assert math.isfinite(live.good().camera_pose.pose.position.x)
