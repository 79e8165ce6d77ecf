"""Launch files: by import with the real `launch` packages where they are, by syntax tree everywhere."""

from __future__ import annotations

import ast
import importlib.util

import pytest
import yaml

from helpers import REPOSITORY

MULTI_CAMERA = REPOSITORY / "launch" / "multi_camera.launch.py"
DOMAIN = 61
FILES = sorted((REPOSITORY / "launch").glob("*.launch.py"))
EXPECTED = {"namespace", "camera_name", "image_topic", "camera_info_topic", "params_file", "use_sim_time", "rviz",
            "rviz_config", "log_level", "autostart"}


def load(path):
    spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def literal(path, name):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path.name} has no {name}")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_argument_has_a_default_and_a_text(path):
    arguments = literal(path, "ARGUMENTS")
    assert all(isinstance(default, str) and text.endswith(".") for default, text in arguments.values())
    used = {n.slice.value for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Subscript) and isinstance(n.value, ast.Name) and n.value.id == "value"}
    assert used == set(arguments), "every argument must have an effect"


def test_the_reconstructor_launch_has_the_usual_arguments():
    assert set(literal(REPOSITORY / "launch" / "reconstructor.launch.py", "ARGUMENTS")) >= EXPECTED


def test_the_multi_camera_launch_has_the_usual_arguments():
    usual = (EXPECTED - {"camera_name"}) | {"cameras", "respawn", "extrinsics_file"}
    assert set(literal(REPOSITORY / "launch" / "multi_camera.launch.py", "ARGUMENTS")) >= usual


def multi_camera_function(name):
    """One function of the launch file, which needs no launch packages."""
    tree = ast.parse(MULTI_CAMERA.read_text())
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    names = {"yaml": yaml}
    exec(compile(ast.Module([function], []), "multi_camera.launch.py", "exec"), names)
    return names[name]


def test_one_reconstructor_for_all_cameras_reads_the_topics_of_one_for_each():
    reconstructors = multi_camera_function("reconstructors")
    cameras, topics = ["front", "left"], {"image": "color/image", "camera_info": ""}
    each, one = reconstructors(cameras, topics, False), reconstructors(cameras, topics, True)
    assert one == [("", [("front/image", "front/color/image"), ("left/image", "left/color/image")],
                    {"cameras": cameras})]
    assert [f"{below}/{topic}" for below, remappings, _ in each for _, topic in remappings] == [
        topic for _, topic in one[0][1]]
    assert [own for _, _, own in each] == [{"camera_name": "front"}, {"camera_name": "left"}]


def test_the_multi_camera_launch_finds_the_cameras_of_a_file():
    cameras_of = multi_camera_function("cameras_of")
    assert cameras_of(REPOSITORY / "config" / "multi_camera.yaml") == ["front", "left", "right", "back"]
    with pytest.raises(RuntimeError, match="lists no cameras for human_scene_fusion; set cameras"):
        cameras_of(REPOSITORY / "config" / "reconstructor.yaml")


def test_the_multi_camera_launch_says_nothing_about_parameters_unless_it_is_asked_to():
    given_parameters = multi_camera_function("given_parameters")
    defaults = {name: default for name, (default, _) in literal(MULTI_CAMERA, "ARGUMENTS").items()}
    assert given_parameters(defaults) == {"reconstructor_node": {}, "fusion_node": {}}
    assert given_parameters({**defaults, "transport": "compressed", "world_frame": "hall", "autostart": "False"}) == {
        "reconstructor_node": {"input.transport": "compressed", "tf.world_frame": "hall", "autostart": False},
        "fusion_node": {"world_frame": "hall", "autostart": False}}


@pytest.mark.ros
@pytest.mark.parametrize("given", [{}, {"drop_policy": "latest"}], ids=["file only", "an argument given"])
def test_the_users_file_goes_before_defaults_of_the_launch_file_and_arguments_before_both(tmp_path, given):
    """The words that launch_ros makes of the file's nodes, as rclpy understands them, for two cameras of a rig."""
    rclpy = pytest.importorskip("rclpy")
    value = {name: default for name, (default, _) in literal(MULTI_CAMERA, "ARGUMENTS").items()} | given
    arguments = multi_camera_function("ros_arguments")(value, {"camera_pose": "static", "map.enabled": "false"})
    said = multi_camera_function("given_parameters")(value)["reconstructor_node"]
    user = tmp_path / "user.yaml"
    user.write_text("""
/**/human_scene:
  ros__parameters: {input.drop_policy: all, tf.world_frame: hall, map.enabled: true}
/front/human_scene:
  ros__parameters: {input.transport: compressed}
""")
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=DOMAIN)
    found = {}
    try:
        for camera in ("front", "left"):
            own = tmp_path / f"{camera}.yaml"  # launch_ros writes dictionaries under the node's full name
            own.write_text(yaml.safe_dump({f"/{camera}/human_scene": {"ros__parameters": {
                "camera_name": camera, **said}}}))
            node = rclpy.create_node(
                "human_scene", namespace=camera, context=context, start_parameter_services=False,
                automatically_declare_parameters_from_overrides=True,
                cli_args=[*arguments, "--params-file", str(user), "--params-file", str(own)])
            found[camera] = {name: p.value for name, p in node.get_parameters_by_prefix("").items()}
            node.destroy_node()
    finally:
        rclpy.shutdown(context=context)
    both = {"camera_pose": "static", "map.enabled": True, "tf.world_frame": "hall",
            "input.drop_policy": given.get("drop_policy", "all")}
    for camera, transport in (("front", "compressed"), ("left", None)):
        expected = {**both, "camera_name": camera, "input.transport": transport}
        assert {name: found[camera].get(name) for name in expected} == expected


def test_executables_exist():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "executable" and node.value.value != "rviz2":
                assert (REPOSITORY / "scripts" / node.value.value).exists(), node.value.value


def shown_topics(name):
    """Topic -> durability of every display of an RViz file."""
    config = yaml.safe_load((REPOSITORY / "rviz" / name).read_text())
    topics = {}

    def collect(displays):
        for display in displays:
            if "Topic" in display:
                topics[display["Topic"]["Value"]] = display["Topic"]["Durability Policy"]
            collect(display.get("Displays", []))

    collect(config["Visualization Manager"]["Displays"])
    return topics


def test_rviz_shows_our_topics_with_our_qos():
    topics = shown_topics("single_camera.rviz")
    assert topics["/human_scene/map/cloud"] == "Transient Local"
    assert {"/human_scene/cloud", "/human_scene/path", "/human_scene_markers/skeletons",
            "/human_scene_markers/overlay"} <= set(topics)
    source = "".join((REPOSITORY / "human_scene_ros" / "nodes" / name).read_text()
                     for name in ("publishers.py", "markers_node.py"))
    for topic in topics:
        name = topic.removeprefix("/human_scene_markers/").removeprefix("/human_scene/")
        assert name in source, topic


def test_rviz_of_several_cameras_shows_people_and_the_cameras_of_the_config():
    cameras = ("front", "left", "right", "back")
    assert set(shown_topics("multi_camera.rviz")) == {
        *(f"/human_scene_markers/{name}" for name in ("skeletons", "capsules", "trails", "meshes")),
        *(f"/{camera}/human_scene/cloud" for camera in cameras)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_descriptions_build_with_the_real_launch_packages(path, monkeypatch):
    launch = pytest.importorskip("launch", reason="ROS 2's launch packages are not installed")
    pytest.importorskip("launch_ros", reason="ROS 2's launch packages are not installed")
    module = load(path)
    description = module.generate_launch_description()
    context = launch.LaunchContext()
    for entity in description.entities[:-1]:
        entity.visit(context)
    function = getattr(module, "nodes", None) or module.actions
    assert len(function(context)) >= 3
