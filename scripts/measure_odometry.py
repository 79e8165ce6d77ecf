#!/usr/bin/env python3
"""Camera motion on synthetic worlds: by true depth (a depth camera), by the network's depth, and standing still.

    ./env.sh python scripts/measure_odometry.py --suite rooms --seed 7 --worlds 6 --frames 80

Prints, per world and as means: path length, ATE over path length (after SE(3)) and RMSE of the rotation between
neighbouring frames, for each of the three.
"""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np

from human_scene_ros.evaluation.trajectory import trajectory_errors
from human_scene_ros.runtime.engine import make_stream
from human_scene_ros.runtime.stream import HumanSceneStream, StreamConfig
from human_scene_ros.scene import CameraFrame
from human_scene_ros.synthetic.world import SUITES, SyntheticWorld


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=sorted(SUITES), default="rooms")
    parser.add_argument("--seed", type=int, default=7, help="world k is that of 'evaluate synthetic' with this seed")
    parser.add_argument("--worlds", type=int, default=6)
    parser.add_argument("--frames", type=int, default=80)
    arguments = parser.parse_args()
    first = make_stream(config=StreamConfig(camera_pose="odometry", world="level"))
    second = HumanSceneStream(first.network, first.body_model, first.config, first.weights, first.engine)
    config = dataclasses.replace(SUITES[arguments.suite], width=320, height=240, num_frames=arguments.frames)
    rows: dict[str, list[tuple[float, float]]] = {"true depth": [], "network's depth": [], "standing still": []}
    for index in range(arguments.worlds):
        world = SyntheticWorld(arguments.seed * 100_003 + index, config)
        first.reset()
        second.reset()
        poses: dict[str, list[np.ndarray]] = {name: [] for name in rows}
        truth = []
        for k in range(arguments.frames):
            frame = world.frame(k)
            seen = CameraFrame(frame.stamp_ns, frame.image, "camera", frame.camera)
            sensed = dataclasses.replace(seen, depth_m=frame.depth_m)
            poses["true depth"].append(first.step(sensed).T_world_camera)
            poses["network's depth"].append(second.step(seen).T_world_camera)
            poses["standing still"].append(np.eye(4))
            truth.append(frame.T_world_camera)
        for name, estimate in poses.items():
            errors = trajectory_errors(np.stack(estimate), np.stack(truth), kind="se3")
            if errors.path_length_m >= 0.1:
                rows[name].append((errors.ate_rmse_m / errors.path_length_m, errors.rpe_rot_rmse_deg))
                print(f"world {index} path {errors.path_length_m:.2f} m, {name:16s} ATE/path {rows[name][-1][0]:.3f}, "
                      f"rotation {rows[name][-1][1]:.3f} deg", flush=True)
    for name, values in rows.items():
        if values:
            mean, median = np.mean(values, axis=0), np.median(values, axis=0)
            print(f"{name:16s} ATE/path mean {mean[0]:.3f} median {median[0]:.3f}, rotation mean {mean[1]:.3f} median "
                  f"{median[1]:.3f} deg ({len(values)} worlds that move)")


if __name__ == "__main__":
    main()
