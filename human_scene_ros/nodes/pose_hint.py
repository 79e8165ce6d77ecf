"""What the robot knows of its camera's motion: /tf at the stamp of each image, as a hint for the odometry."""

from __future__ import annotations

import threading

from human_scene_ros.nodes.diagnostics import Level, Notes
from human_scene_ros.nodes.reconstructor_config import OdometryConfig
from human_scene_ros.nodes.tf_tree import TfTree, TransformGoneError, TransformNotReadyError
from human_scene_ros.scene import PoseHint

PATIENT_MISSES = 8
"""After so many hints in a row that did not come no image waits for one, until one comes by itself."""


class PoseHints:
    """Looks up T_hint_camera. Images go on without a hint; how many did is counted.

    Args:
        tree: What /tf said.
        config: Frame, wait and noise.
        notes: Where a missing hint goes.
    """

    def __init__(self, tree: TfTree, config: OdometryConfig, notes: Notes) -> None:
        self._tree, self._config, self._notes = tree, config, notes
        self._news = threading.Condition()
        self._misses_in_a_row = 0
        self.missed = 0
        """Images that went on without a hint."""

    def told(self) -> None:
        """Something came on /tf. Called in the executor's thread."""
        with self._news:
            self._news.notify_all()

    def at(self, camera_frame: str, stamp_ns: int) -> PoseHint | None:
        """The hint for one image; None without `odometry.hint_frame`, or where /tf does not know (which is noted).

        Called from the worker. Waits a moment for a transform newer than the image, which often comes after it.
        """
        config, found = self._config, None
        if not config.hint_frame:
            return None
        wait_s = config.hint_wait if self._misses_in_a_row < PATIENT_MISSES else 0.0
        problem = ""

        def settled() -> bool:
            nonlocal found, problem
            try:
                found = self._tree.lookup(config.hint_frame, camera_frame, stamp_ns)
            except TransformNotReadyError as error:
                problem = str(error)
                return False
            except TransformGoneError as error:
                problem = str(error)
            return True

        with self._news:
            self._news.wait_for(settled, wait_s)
        if found is None:
            self.missed += 1
            self._misses_in_a_row += 1
            self._notes.add("hint", Level.WARN, f"no odometry hint: {problem}; odometry.hint_frame is "
                                                f"'{config.hint_frame}', the image alone is used")
            return None
        self._misses_in_a_row = 0
        self._notes.remove("hint")
        return PoseHint(found, config.hint_rotation_noise, config.hint_translation_noise)
