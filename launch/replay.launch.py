"""A recording, video or image folder through the reconstructor, no image left out; ends with the recording.

ros2 launch human_scene_ros replay.launch.py input:=/data/walk.mp4 rviz:=true rate:=1.0
"""

import os

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

PACKAGE = "human_scene_ros"
ARGUMENTS = {
    "input": ("", "rosbag2 folder, .mcap, video file or folder of images."),
    "image": ("", "Image topic of the recording; empty = the only one."),
    "info": ("", "CameraInfo topic of the recording; empty = the sibling of the image topic."),
    "rate": ("1.0", "Speed; 0 = as fast as images are processed."),
    "loop": ("false", "Begin again at the end."),
    "rviz": ("false", "Start RViz."),
    "tf_mode": ("camera", "none, or camera: send world -> root of the camera's own tree."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
}


def generate_launch_description():
    arguments = [DeclareLaunchArgument(name, default_value=default, description=text)
                 for name, (default, text) in ARGUMENTS.items()]
    return LaunchDescription([*arguments, OpaqueFunction(function=actions)])


def actions(context):
    """The actions, once the values of the arguments are known."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    share = get_package_share_directory(PACKAGE)
    reconstructor = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(os.path.join(share, "launch", "reconstructor.launch.py")),
        launch_arguments={"drop_policy": "all", "use_sim_time": "true", "rviz": value["rviz"],
                          "tf_mode": value["tf_mode"], "log_level": value["log_level"]}.items())
    bag = Node(package=PACKAGE, executable="bag_node", name="human_scene_bag", output="screen", parameters=[{
        "input": value["input"], "image": value["image"], "info": value["info"], "rate": float(value["rate"]),
        "loop": value["loop"].lower() == "true", "transport": "raw", "wait_for_subscribers": 1,
        "use_sim_time": False}])  # it makes /clock
    stop = RegisterEventHandler(OnProcessExit(target_action=bag, on_exit=[EmitEvent(event=Shutdown())]))
    return [reconstructor, bag, stop]
