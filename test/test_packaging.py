"""What the two ways to install (colcon and pip), the pinned requirements and the texts say must agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import human_scene_ros

from helpers import REPOSITORY

SETUP = ast.parse((REPOSITORY / "setup.py").read_text())
CMAKE = (REPOSITORY / "CMakeLists.txt").read_text()


def setup_argument(name: str) -> ast.expr:
    (call,) = (n for n in ast.walk(SETUP) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "setup")
    return next(k.value for k in call.keywords if k.arg == name)


def names_in(file: str) -> set[str]:
    """Lower-case project names of a requirements file."""
    found = set()
    for line in (REPOSITORY / "requirements" / file).read_text().splitlines():
        if line and not line.startswith("#"):
            found.add(re.split(r"[\[<>=]", line)[0].lower().replace("_", "-"))
    return found


def test_versions_agree():
    package = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    result = subprocess.run([sys.executable, "setup.py", "--version"], cwd=REPOSITORY, capture_output=True, text=True,
                            timeout=120, check=True)
    assert result.stdout.split()[-1] == package.findtext("version") == human_scene_ros.__version__


def test_colcon_and_pip_install_the_same_modules():
    """CMake installs the whole folder; setuptools only folders that are packages, and data that is declared."""
    from setuptools import find_packages

    assert re.search(r"install\(DIRECTORY \$\{PROJECT_NAME\}/", CMAKE)
    folders = {str(p.parent.relative_to(REPOSITORY)).replace("/", ".")
               for p in (REPOSITORY / "human_scene_ros").rglob("*.py")}
    assert set(find_packages(str(REPOSITORY), include=["human_scene_ros", "human_scene_ros.*"])) == folders
    patterns = ast.literal_eval(setup_argument("package_data"))["human_scene_ros"]
    tracked = subprocess.run(["git", "ls-files", "human_scene_ros"], cwd=REPOSITORY, capture_output=True, text=True,
                             check=False).stdout.split()
    data = [Path(name) for name in tracked if not name.endswith(".py")]
    package = Path("human_scene_ros")
    assert [str(p) for p in data if not any(p.relative_to(package).match(pattern) for pattern in patterns)] == []


def test_every_node_with_a_main_has_an_executable_that_cmake_installs():
    nodes = {p.stem for p in (REPOSITORY / "human_scene_ros/nodes").glob("*_node.py")
             if re.search(r"^def main\(", p.read_text(), re.MULTILINE)}
    launchers = {p.name for p in (REPOSITORY / "scripts").iterdir() if p.name.endswith("_node")}
    assert launchers == nodes
    assert set(re.findall(r"scripts/(\w+_node)", CMAKE)) == launchers
    for name in launchers:
        path = REPOSITORY / "scripts" / name
        assert path.stat().st_mode & 0o111, f"{name} is not executable"
        assert f"human_scene_ros.nodes.{name} import main" in path.read_text()


def test_every_ros_package_that_is_imported_is_declared():
    package = ElementTree.parse(REPOSITORY / "package.xml").getroot()
    declared = {e.text for e in package if e.tag.endswith("depend")}
    from test_layers import ROS_MODULES, imports

    used = {name.split(".")[0] for folder in ("human_scene_ros", "launch")
            for path in (REPOSITORY / folder).rglob("*.py") for name, _, _ in imports(path)}
    assert sorted(used & ROS_MODULES - declared) == []


def test_third_party_imports_are_declared_everywhere():
    from test_layers import ROS_MODULES, imports

    project_of = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}
    imported = {name.split(".")[0] for path in (REPOSITORY / "human_scene_ros").rglob("*.py")
                for name, _, _ in imports(path)}
    optional = {"moderngl", "onnxruntime", "onnx", "distributed"}  # of one command each; docs/dependencies.md
    third_party = {project_of.get(n, n) for n in
                   imported - set(sys.stdlib_module_names) - ROS_MODULES - optional - {"human_scene_ros"}}
    ranges = {re.split(r"[<>=]", r)[0].lower() for r in ast.literal_eval(setup_argument("install_requires"))}
    assert third_party == ranges, "setup.py lists exactly what is imported"
    assert names_in("run.txt") == ranges - {"torch"}, "torch is chosen by the Makefile"
    assert names_in("apt_ros.txt") >= ranges - {"opencv-python-headless"}, "apt brings OpenCV"


def test_every_requirement_is_pinned_and_inside_the_range_for_users():
    from packaging.requirements import Requirement

    pins = dict(line.split("==") for line in (REPOSITORY / "requirements/constraints.txt").read_text().splitlines()
                if line and not line.startswith("#"))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    wanted = names_in("ros.txt") | names_in("run.txt") | names_in("test.txt") | names_in("train.txt")
    wanted |= names_in("onnx.txt")
    assert sorted(wanted - set(pins) - {"setuptools"}) == []
    for text in ast.literal_eval(setup_argument("install_requires")):
        requirement = Requirement(text)
        if requirement.name != "torch":
            assert requirement.specifier.contains(pins[requirement.name.lower()]), text


def test_peers_are_never_installed_by_default():
    peers = names_in("peers.txt")
    others = set().union(*(names_in(p.name) for p in (REPOSITORY / "requirements").glob("*.txt")
                           if p.name != "peers.txt"))
    assert "smplx" in peers
    assert peers & others == set()


def test_licence_texts():
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
    assert ElementTree.parse(REPOSITORY / "package.xml").getroot().findtext("license") == "Apache-2.0"
    assert ast.literal_eval(setup_argument("license")) == "Apache-2.0"
    assert "CC0" in (REPOSITORY / "NOTICE").read_text()


def test_pyproject_holds_tool_settings_only():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert set(settings) == {"tool"}, "the package is described by setup.py and package.xml"


def test_package_imports_without_ros_and_without_torch():
    """The light core starts in any Python: no module of it may need ROS or load torch on import."""
    code = ("import sys\nfor n in ('rclpy', 'std_msgs', 'torch'): sys.modules[n] = None\n"
            "import human_scene_ros.scene, human_scene_ros.cli, human_scene_ros.body.parameters\n"
            "import human_scene_ros.sources.message_definitions\n")
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120,
                            check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("target", ["env", "demo", "test", "lint", "bench", "clean"])
def test_make_targets_exist_and_are_phony(target: str):
    """`env` without .PHONY would be made from env.sh by a built-in rule."""
    text = (REPOSITORY / "Makefile").read_text()
    assert re.search(rf"^{target}:", text, re.MULTILINE)
    assert re.search(rf"^\.PHONY:.*\b{target}\b", text, re.MULTILINE)
