"""The life of the reconstructor process: bad settings, bad weights, lifecycle, signals, a dying worker."""

from __future__ import annotations

import pickle
import signal

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from lifecycle_msgs.msg import State, Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from ros_graph import graph, image_message, picture, untrained_checkpoint  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from human_scene_ros.msg import SceneStatus, SmplxBodyArray  # noqa: E402
from human_scene_ros.nodes import qos  # noqa: E402

pytestmark = pytest.mark.ros
DOMAIN = 33


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("process")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return untrained_checkpoint(folder)


@pytest.mark.parametrize(("parameters", "words"), [
    ({"input.queue": 0}, ("input.queue = 0", "1 to 1000")),
    ({"input.queeu": 3, "tf.mode": "sideways"}, ("input.queeu", "known", "input.queue", "'sideways'", "camera")),
    ({"bodies.min_score": "high"}, ("bodies.min_score = 'high'", "float")),
], ids=["range", "unknown", "type"])
def test_bad_parameters_end_the_process_with_one_line(folder, parameters, words):
    with graph(DOMAIN, folder) as g:
        process = g.start("reconstructor_node", parameters)
        assert process.wait() == 2
        assert all(word in process.output for word in words), process.output
        assert "Traceback" not in process.output


def truncated(folder, checkpoint):
    path = folder / "truncated.safetensors"
    path.write_bytes(checkpoint.read_bytes()[:100_000])
    return path


class Unexpected:
    def __reduce__(self):
        return (print, ("this code must not run",))


def a_pickle(folder, checkpoint):
    path = folder / "official.pth"
    path.write_bytes(pickle.dumps(Unexpected()))
    return path


def body_without_key(folder, checkpoint):
    path = folder / "body.npz"
    np.savez(path, v_template=np.zeros((3, 3)), f=np.zeros((1, 3), int))
    return path


@pytest.mark.parametrize(("name", "make", "preset", "words"), [
    ("model.checkpoint", lambda f, c: f / "missing.safetensors", "nano", ("missing.safetensors", "does not exist")),
    ("model.checkpoint", truncated, "nano", ("truncated.safetensors",)),
    ("model.checkpoint", lambda f, c: c, "human3r_672s", ("nano", "human3r_672s")),
    ("model.checkpoint", a_pickle, "nano", ("official.pth", "human-scene convert checkpoint")),
    ("model.body", body_without_key, "nano", ("body.npz", "shapedirs")),
    ("model.device", lambda f, c: "cuda:77", "nano", ("cuda:77",)),
], ids=["missing", "truncated", "other preset", "pickle", "body", "device"])
def test_what_cannot_be_loaded_leaves_the_node_unconfigured_and_says_why(folder, checkpoint, name, make, preset, words):
    with graph(DOMAIN, folder) as g:
        diagnostics = g.collect(DiagnosticArray, "/diagnostics")
        statuses = g.collect(SceneStatus, "human_scene/status", qos.latched(1))
        process = g.start("reconstructor_node", {
            "model.checkpoint": str(checkpoint), "model.preset": preset, name: str(make(folder, checkpoint)),
            "diagnostics.period": 0.2})
        line = g.wait(lambda: next((s for m in diagnostics for s in m.status if s.level == b"\x02"), None),
                      "an ERROR in diagnostics")
        assert line.name == "human_scene: Inference" and all(word in line.message for word in words), line.message
        g.wait(lambda: statuses, "a status")
        assert statuses[-1].state == SceneStatus.STATE_UNCONFIGURED and words[0] in statuses[-1].message
        assert "this code must not run" not in process.output and "Traceback" not in process.output
        assert g.call(GetState, "human_scene/get_state", GetState.Request()).current_state.id \
            == State.PRIMARY_STATE_UNCONFIGURED
        assert process.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_signals_after_ready_end_with_0_and_leave_nothing(folder, checkpoint, number):
    with graph(DOMAIN, folder) as g:
        process = g.start("reconstructor_node", {"model.checkpoint": str(checkpoint)})
        publisher = g.publisher(Image, "image")
        process.wait_output("ready")
        g.wait(publisher.get_subscription_count, "the subscription")
        for i in range(5):  # it ends in the middle of work
            publisher.publish(image_message(i * 10**8, picture(640, 480)))
        g.spin(0.05)
        process.signal(number)
        process.signal(number)
        assert process.wait() == 0, process.output
        assert "Traceback" not in process.output
        g.wait(lambda: not publisher.get_subscription_count(), "the subscription to go")


def test_a_lifecycle_manager_can_drive_it(folder, checkpoint):
    with graph(DOMAIN, folder) as g:
        process = g.start("reconstructor_node", {"model.checkpoint": str(checkpoint), "autostart": False,
                                                 "diagnostics.period": 0.2})
        bodies = g.collect(SmplxBodyArray, "human_scene/bodies")
        statuses = g.collect(SceneStatus, "human_scene/status", qos.latched(1))
        publisher = g.publisher(Image, "image")

        def change(transition: int) -> bool:
            request = ChangeState.Request()
            request.transition.id = transition
            return g.call(ChangeState, "human_scene/change_state", request).success

        def one_image(stamp_ns: int) -> SmplxBodyArray:
            g.wait(publisher.get_subscription_count, "the subscription")
            before = len(bodies)
            publisher.publish(image_message(stamp_ns, picture()))
            return g.wait(lambda: len(bodies) > before and bodies[-1], "bodies")

        g.wait(lambda: statuses and statuses[-1].state == SceneStatus.STATE_UNCONFIGURED, "the unconfigured state")
        assert not publisher.get_subscription_count()
        assert change(Transition.TRANSITION_CONFIGURE) and change(Transition.TRANSITION_ACTIVATE)
        assert one_image(10**9).segment == 0
        assert change(Transition.TRANSITION_DEACTIVATE)
        g.wait(lambda: not publisher.get_subscription_count(), "the end of the subscription")
        assert change(Transition.TRANSITION_ACTIVATE)
        assert one_image(2 * 10**9).segment == 0  # the memory was kept
        assert change(Transition.TRANSITION_DEACTIVATE) and change(Transition.TRANSITION_CLEANUP)
        g.wait(lambda: statuses[-1].state == SceneStatus.STATE_UNCONFIGURED and not statuses[-1].weights, "no weights")
        assert change(Transition.TRANSITION_CONFIGURE) and change(Transition.TRANSITION_ACTIVATE)
        assert one_image(3 * 10**9).segment == 0
        assert process.stop() == 0


def test_a_dying_worker_ends_the_process_with_1_and_the_reason(folder, checkpoint):
    """The fault is planted by a `sitecustomize` that the process imports first."""
    planted = folder / "planted"
    planted.mkdir(exist_ok=True)
    (planted / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n"
        "import human_scene_ros.runtime.stream as stream\n"
        "def step(self, frame):\n"
        "    raise RuntimeError('planted fault')\n"
        "stream.HumanSceneStream.step = step\n")
    import os
    with graph(DOMAIN, folder) as g:
        statuses = g.collect(SceneStatus, "human_scene/status", qos.latched(50))
        process = g.start("reconstructor_node", {"model.checkpoint": str(checkpoint), "input.drop_policy": "all"},
                          environment={"PYTHONPATH": f"{planted}:{os.environ.get('PYTHONPATH', '')}"})
        publisher = g.publisher(Image, "image")
        process.wait_output("ready")
        g.wait(publisher.get_subscription_count, "the subscription")
        for i in range(12):
            publisher.publish(image_message(i * 10**8, picture()))
        g.wait(lambda: not process.running, "the end of the process")
        assert process.wait() == 1
        assert "worker died: RuntimeError: planted fault" in process.output
        assert statuses and statuses[-1].frames_rejected >= 1  # single faults before it were counted and survived
