"""launch/multi_camera.launch.py with its real processes, where ROS 2's launch packages are installed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("launch", reason="ROS 2's launch packages are not installed")
pytest.importorskip("launch_ros", reason="ROS 2's launch packages are not installed")

from rcl_interfaces.srv import GetParameters  # noqa: E402
from ros_graph import graph, image_message  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402

from human_scene_ros.commands.rig_recording import read_rig_truth  # noqa: E402
from human_scene_ros.msg import FusedPersonArray  # noqa: E402
from human_scene_ros.nodes import convert  # noqa: E402
from human_scene_ros.sources import message_fields  # noqa: E402
from human_scene_ros.sources.fusion_fields import CameraPlace  # noqa: E402
from human_scene_ros.sources.reader import open_source  # noqa: E402
from human_scene_ros.sources.rig_file import rig_text  # noqa: E402

from helpers import REPOSITORY  # noqa: E402

pytestmark = pytest.mark.ros
DOMAIN = 47
RECORDING = REPOSITORY / "demo" / "recording_multi"
RECORDED = {"front": "camera_0", "left": "camera_1"}
PERIOD_NS = 200_000_000
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [argument.split(":=", 1) for argument in sys.argv[2:]]
service = LaunchService(argv=sys.argv[2:])
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)]))
sys.exit(service.run())
"""


class Launched:
    """What `ros2 launch human_scene_ros multi_camera.launch.py` does, in a process of its own."""

    def __init__(self, folder: Path, **arguments: str) -> None:
        self._log = folder / "launch.log"
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(REPOSITORY / "launch" / "multi_camera.launch.py"),
             *(f"{name}:={value}" for name, value in arguments.items())],
            stdout=self._log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "OMP_NUM_THREADS": "1", "ROS_LOG_DIR": str(folder)})

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def pids(self, executable: str) -> list[list[int]]:
        """Of every node of this executable: the processes it had, in order."""
        found: dict[str, list[int]] = {}
        for name, pid in re.findall(rf"\[({executable}-\d+)\]: process started with pid \[(\d+)\]", self.output):
            found.setdefault(name, []).append(int(pid))
        return [found[name] for name in sorted(found)]

    def stop(self) -> int:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(30.0)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            raise AssertionError(f"launch still runs:\n{self.output}") from None


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("shared", [False, True], ids=["one each", "one for all"])
def test_a_rig_is_launched_and_what_dies_comes_back(tmp_path: Path, shared: bool):
    """Cameras, their poses and one camera's own parameter reach the nodes; a killed reconstructor is started again."""
    poses = read_rig_truth(RECORDING).poses(0)
    rig, parameters = tmp_path / "rig.yaml", tmp_path / "parameters.yaml"
    rig.write_text(rig_text("map", [CameraPlace(ours, f"{ours}_optical", poses[theirs])
                                    for ours, theirs in RECORDED.items()]))
    parameters.write_text("""
/**/human_scene:
  ros__parameters: {camera_pose: static, map.enabled: false, bodies.min_score: 0.4}
/left/human_scene:
  ros__parameters: {bodies.min_score: 0.3, input.transport: compressed}
""")
    frames = {}
    for ours, theirs in RECORDED.items():
        with open_source(RECORDING, f"/{theirs}/image/compressed") as source:
            frames[ours] = [frame for _, frame in zip(range(12), source, strict=False)]
    with graph(DOMAIN, tmp_path) as g:
        people = g.collect(FusedPersonArray, "/people")
        infos = {name: g.publisher(CameraInfo, f"/{name}/color/camera_info") for name in RECORDED}
        images = {name: g.publisher(Image, f"/{name}/color/image") for name in RECORDED}
        if not shared:  # one camera's own transport, of its own section
            images["left"] = g.publisher(CompressedImage, "/left/color/image/compressed")
        launched = Launched(tmp_path, cameras="[front,left]", image_topic="color/image", params_file=str(parameters),
                            extrinsics_file=str(rig), shared=str(shared).lower())
        sent = 0

        def play_until(condition: Any, what: str) -> None:
            """Both cameras, five images a second, until the fusion says so."""
            nonlocal sent
            limit_s = time.monotonic() + 60.0
            while not condition():
                assert time.monotonic() < limit_s, f"waited 60 s for {what}\n{launched.output[-6000:]}"
                for name in RECORDED:
                    frame, optical = frames[name][sent % 12], f"{name}_optical"
                    stamp_ns = 1_000_000_000 + sent * PERIOD_NS
                    infos[name].publish(convert.fill(CameraInfo(), message_fields.camera_info_fields(
                        stamp_ns, optical, frame.camera)))
                    images[name].publish(
                        image_message(stamp_ns, frame.image, frame_id=optical) if images[name].msg_type is Image else
                        convert.fill(CompressedImage(), message_fields.compressed_image_fields(
                            stamp_ns, optical, cv2.imencode(".jpg", frame.image[..., ::-1])[1].tobytes())))
                sent += 1
                g.spin(PERIOD_NS * 1e-9)

        def used_now() -> set[str]:
            return set(people[-1].cameras_used) if people else set()

        try:
            play_until(lambda: used_now() == {"front", "left"} and any(a.people for a in people), "people of both")
            assert all(list(a.cameras_expected) == ["front", "left"] for a in people)
            reconstructors = launched.pids("reconstructor_node")
            assert len(reconstructors) == (1 if shared else 2) and len(launched.pids("markers_node")) == 1
            if not shared:
                values = [g.call(GetParameters, f"/{name}/human_scene/get_parameters",
                                 GetParameters.Request(names=["bodies.min_score", "camera_name",
                                                              "input.transport"])).values for name in RECORDED]
                assert [s[0].double_value for s in values] == [0.4, 0.3]
                assert [s[1].string_value for s in values] == ["front", "left"]
                assert [s[2].string_value for s in values] == ["raw", "compressed"]
            victim = reconstructors[-1][0]
            os.kill(victim, signal.SIGKILL)
            if not shared:
                play_until(lambda: used_now() == {"front"}, "people of the camera that is left")
            play_until(lambda: len(launched.pids("reconstructor_node")[-1]) == 2, "a second process")
            before = len(people)
            play_until(lambda: len(people) > before and used_now() == {"front", "left"}, "both cameras again")
            started = [pids[-1] for name in ("reconstructor_node", "fusion_node", "markers_node")
                       for pids in launched.pids(name)]
            assert all(alive(pid) for pid in started) and not alive(victim)
        finally:
            code = launched.stop()
        assert code == 0 and not any(alive(pid) for pid in started), launched.output[-3000:]
        assert "Traceback" not in launched.output
