#!/usr/bin/env python3
"""Camera motion on synthetic worlds: by true depth (a depth camera), by the network's depth, and standing still.

    ./env.sh python scripts/measure_odometry.py --suite rooms --seed 7 --worlds 6 --frames 80
    ./env.sh python scripts/measure_odometry.py --checkpoint runs/pose/ema.safetensors

Prints, per world and as means: path length, ATE over path length (after SE(3); in metres where the camera stays in its
place) and RMSE of the rotation between neighbouring frames, for each of the three; for weights with a pair head also by
that head alone, and by odometry on the network's depth that expects the head's motion.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from human_scene_ros.evaluation.synthetic import MIN_PATH_M
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
    parser.add_argument("--checkpoint", type=Path, help="weights of nano (default: those that ship)")
    arguments = parser.parse_args()
    config = StreamConfig(camera_pose="odometry", world="level")
    first = make_stream(checkpoint=arguments.checkpoint, config=config)
    ways = {"true depth": config, "network's depth": config}
    if first.network.config.pair_pose:
        ways |= {"pair head alone": dataclasses.replace(config, camera_pose="network"),
                 "pair head, odometry": dataclasses.replace(config, camera_pose="guarded")}
    streams = {name: HumanSceneStream(first.network, first.body_model, way, first.weights, first.engine)
               for name, way in ways.items()}
    suite = dataclasses.replace(SUITES[arguments.suite], width=320, height=240, num_frames=arguments.frames)
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in (*streams, "standing still")}
    in_place: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for index in range(arguments.worlds):
        world = SyntheticWorld(arguments.seed * 100_003 + index, suite)
        for stream in streams.values():
            stream.reset()
        poses: dict[str, list[np.ndarray]] = {name: [] for name in rows}
        truth = []
        for k in range(arguments.frames):
            frame = world.frame(k)
            seen = CameraFrame(frame.stamp_ns, frame.image, "camera", frame.camera)
            sensed = dataclasses.replace(seen, depth_m=frame.depth_m)
            for name, stream in streams.items():
                poses[name].append(stream.step(sensed if name == "true depth" else seen).T_world_camera)
            poses["standing still"].append(np.eye(4))
            truth.append(frame.T_world_camera)
        for name, estimate in poses.items():
            errors = trajectory_errors(np.stack(estimate), np.stack(truth), kind="se3")
            moves = errors.path_length_m >= MIN_PATH_M
            ate = errors.ate_rmse_m / (errors.path_length_m if moves else 1.0)
            (rows if moves else in_place)[name].append((ate, errors.rpe_rot_rmse_deg))
            print(f"world {index} path {errors.path_length_m:.2f} m, {name:19s} ATE{'/path' if moves else ', m'} "
                  f"{ate:.3f}, rotation {errors.rpe_rot_rmse_deg:.3f} deg", flush=True)
    for kind, unit, table in (("that move", "/path", rows), ("in their place", ", m", in_place)):
        for name, values in table.items():
            if values:
                mean, median = np.mean(values, axis=0), np.median(values, axis=0)
                print(f"{name:19s} ATE{unit} mean {mean[0]:.3f} median {median[0]:.3f}, rotation mean {mean[1]:.3f} "
                      f"median {median[1]:.3f} deg ({len(values)} worlds {kind})")


if __name__ == "__main__":
    main()
