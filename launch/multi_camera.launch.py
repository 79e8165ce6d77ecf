"""Any number of cameras: one reconstructor each or one for all, one fusion, markers of the people, optionally RViz.

ros2 launch human_scene_ros multi_camera.launch.py cameras:=[front,left] image_topic:=color/image_raw rviz:=true
ros2 launch human_scene_ros multi_camera.launch.py params_file:=/path/to/my_rig.yaml extrinsics_file:=/path/to/rig.yaml

Camera `front` lives in the namespace /front: its images are /front/<image_topic>, its bodies /front/human_scene/bodies.
Parameters of one camera: a section /front/human_scene in `params_file`, after those for all. What an argument says
that is given goes before the file, what the file says before the defaults. With shared:=true one reconstructor,
/human_scene, serves all cameras under the same topics. A process that dies is started again.
"""

import os

import yaml
from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node, SetParameter

from launch import LaunchDescription

PACKAGE = "human_scene_ros"
ARGUMENTS = {
    "namespace": ("", "Namespace of all nodes; the cameras' own come below it."),
    "cameras": ("", "Names, for instance [front,left]; empty = those of params_file."),
    "shared": ("false", "true: one reconstructor, with one network, for all cameras; false: one for each."),
    "image_topic": ("image", "Image topic in the namespace of each camera."),
    "camera_info_topic": ("", "CameraInfo topic in the namespace of each camera; empty = beside the image topic."),
    "transport": ("", "raw or compressed; empty = what params_file says, else raw."),
    "drop_policy": ("", "latest: newest image wins; all: every image, for replay; empty = params_file's, else latest."),
    "params_file": ("", "Parameter file; empty = config/multi_camera.yaml, or the defaults if cameras are named."),
    "extrinsics_file": ("", "Poses of all cameras, as calibrate_extrinsics writes them; empty = from /tf."),
    "world_frame": ("", "Name of the z-up world frame; empty = what params_file says, else map."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "respawn": ("true", "Start a node again when it dies, after two seconds."),
    "markers": ("true", "Start markers_node for the fused people."),
    "rviz": ("false", "Start RViz."),
    "rviz_config": ("", "RViz configuration; empty = rviz/multi_camera.rviz of the package."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
    "autostart": ("", "Configure and activate the lifecycle nodes at start; empty = what params_file says, else true."),
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
    given = yaml.safe_load(value["cameras"] or "[]")
    params = value["params_file"] or ("" if given else os.path.join(share, "config", "multi_camera.yaml"))
    cameras = [str(name) for name in given] or cameras_of(params)
    files = [params] if params else []
    common = {"package": PACKAGE, "output": "screen", "respawn": value["respawn"].lower() == "true",
              "respawn_delay": 2.0}
    actions = [SetParameter("use_sim_time", value["use_sim_time"].lower() == "true")]
    if value["fastdds_shm"].lower() == "true":
        actions += shared_memory(os.path.join(share, "config", "fastdds_shm.xml"))

    said = given_parameters(value)
    topics = {"image": value["image_topic"], "camera_info": value["camera_info_topic"]}
    for below, remappings, own in reconstructors(cameras, topics, value["shared"].lower() == "true"):
        # A camera of a rig stands still, unless the file says something else.
        actions.append(Node(executable="reconstructor_node", name="human_scene",
                            namespace=f"{value['namespace']}/{below}".strip("/"), remappings=remappings,
                            arguments=ros_arguments(value, {"camera_pose": "static", "map.enabled": "false"}),
                            parameters=[*files, {**said["reconstructor_node"], **own}], **common))
    rig = {**said["fusion_node"], "cameras": cameras}
    if value["extrinsics_file"]:
        rig["extrinsics.file"] = value["extrinsics_file"]
        rig.update({f"{name}.extrinsics_source": "file" for name in cameras})
    actions.append(Node(executable="fusion_node", name="human_scene_fusion", namespace=value["namespace"],
                        arguments=ros_arguments(value, {}), parameters=[*files, rig], **common))
    if value["markers"].lower() == "true":
        actions.append(Node(executable="markers_node", name="human_scene_markers", namespace=value["namespace"],
                            arguments=ros_arguments(value, {"source": "people"}), parameters=files, **common))
    if value["rviz"].lower() == "true":
        config = value["rviz_config"] or os.path.join(share, "rviz", "multi_camera.rviz")
        actions.append(Node(package="rviz2", executable="rviz2", name="rviz2", namespace=value["namespace"],
                            arguments=["-d", config], output="screen"))
    return actions


def given_parameters(value):
    """Node -> its parameters for which an argument was given; nothing else may hide what the user's file says."""
    common = {"autostart": value["autostart"] and value["autostart"].lower() == "true"}
    said = {"reconstructor_node": {"input.transport": value["transport"], "input.drop_policy": value["drop_policy"],
                                   "tf.world_frame": value["world_frame"], **common},
            "fusion_node": {"world_frame": value["world_frame"], **common}}
    return {node: {name: setting for name, setting in parameters.items() if setting != ""}
            for node, parameters in said.items()}


def ros_arguments(value, defaults):
    """Log level, and defaults of parameters: files come later, so that whatever section of theirs goes before these."""
    given = [word for name, text in defaults.items() for word in ("-p", f"{name}:={text}")]
    return ["--ros-args", "--log-level", value["log_level"], *given]


def reconstructors(cameras, topics, shared):
    """Namespace, remappings and parameters of each reconstructor; topics that are "" keep their names."""
    named = {ours: theirs for ours, theirs in topics.items() if theirs}
    if shared:
        return [("", [(f"{name}/{ours}", f"{name}/{theirs}") for name in cameras for ours, theirs in named.items()],
                 {"cameras": cameras})]
    return [(name, list(named.items()), {"camera_name": name}) for name in cameras]


def cameras_of(params):
    """What the section of the fusion node in a parameter file lists."""
    with open(params, encoding="utf-8") as file:
        sections = yaml.safe_load(file)
    for name, section in sections.items():
        if name.endswith("human_scene_fusion") and section["ros__parameters"].get("cameras"):
            return [str(camera) for camera in section["ros__parameters"]["cameras"]]
    raise RuntimeError(f"{params} lists no cameras for human_scene_fusion; set cameras:=[front,left]")


def shared_memory(profile):
    """Images and clouds over 0.5 MB get lost on Fast DDS's default transports; both ends need the profile."""
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")  # Fast DDS 2 and 3
    if any(os.environ.get(name) for name in names) or os.environ.get("FASTDDS_BUILTIN_TRANSPORTS"):
        return []
    return [SetEnvironmentVariable(name, profile) for name in names]
