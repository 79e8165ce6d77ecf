"""One camera: reconstructor and markers, optionally RViz.

ros2 launch human_scene_ros reconstructor.launch.py image_topic:=/camera/color/image_raw
ros2 launch human_scene_ros reconstructor.launch.py namespace:=front image_topic:=image_raw tf_mode:=camera rviz:=true
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, SetParameter

from launch import LaunchDescription

PACKAGE = "human_scene_ros"
ARGUMENTS = {
    "namespace": ("", "Namespace of all nodes; topic names below are relative to it."),
    "camera_name": ("camera", "Name of the camera in messages and diagnostics."),
    "image_topic": ("image", "Raw image topic; with transport compressed, <image_topic>/compressed is read."),
    "camera_info_topic": ("", "CameraInfo topic; empty = camera_info beside the image topic."),
    "transport": ("raw", "raw or compressed."),
    "drop_policy": ("latest", "latest: newest image wins; all: every image, for replay."),
    "tf_mode": ("none", "none, or camera: send world -> root of the camera's own tree."),
    "params_file": ("", "Parameter file; empty = config/reconstructor.yaml of the package."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "markers": ("true", "Start markers_node."),
    "rviz": ("false", "Start RViz."),
    "rviz_config": ("", "RViz configuration; empty = rviz/single_camera.rviz of the package."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
    "autostart": ("true", "Configure and activate the reconstructor at start."),
    "fastdds_shm": ("true", "Let Fast DDS pass large messages through shared memory, unless a profile is set."),
}


def generate_launch_description():
    arguments = [DeclareLaunchArgument(name, default_value=default, description=text)
                 for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*arguments, OpaqueFunction(function=nodes)])


def nodes(context):
    """The actions, once the values of the arguments are known."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    share = get_package_share_directory(PACKAGE)
    params = value["params_file"] or os.path.join(share, "config", "reconstructor.yaml")
    remappings = [("image", value["image_topic"])]
    if value["camera_info_topic"]:
        remappings.append(("camera_info", value["camera_info_topic"]))
    common = {"package": PACKAGE, "namespace": value["namespace"], "remappings": remappings, "output": "screen",
              "arguments": ["--ros-args", "--log-level", value["log_level"]]}
    actions = [SetParameter("use_sim_time", value["use_sim_time"].lower() == "true")]
    if value["fastdds_shm"].lower() == "true":
        actions += shared_memory(os.path.join(share, "config", "fastdds_shm.xml"))
    actions.append(Node(executable="reconstructor_node", name="human_scene", parameters=[params, {
        "camera_name": value["camera_name"], "input.transport": value["transport"],
        "input.drop_policy": value["drop_policy"], "tf.mode": value["tf_mode"],
        "autostart": value["autostart"].lower() == "true"}], **common))
    if value["markers"].lower() == "true":
        actions.append(Node(executable="markers_node", name="human_scene_markers",
                            parameters=[params, {"transport": value["transport"]}], **common))
    if value["rviz"].lower() == "true":
        config = value["rviz_config"] or os.path.join(share, "rviz", "single_camera.rviz")
        actions.append(Node(package="rviz2", executable="rviz2", name="rviz2", namespace=value["namespace"],
                            arguments=["-d", config], output="screen"))
    return actions


def shared_memory(profile):
    """Images and clouds over 0.5 MB get lost on Fast DDS's default transports; both ends need the profile."""
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # Fast DDS 2 and 3
    if any(os.environ.get(name) for name in names) or os.environ.get("FASTDDS_BUILTIN_TRANSPORTS"):
        return []
    return [SetEnvironmentVariable(name, profile) for name in names]
