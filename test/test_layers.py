"""Who may import whom, and a few rules that a reader of the tree relies on; all checked by syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import REPOSITORY

PACKAGE = REPOSITORY / "human_scene_ros"
MAX_LINES = 900

SHARED = {"errors", "config", "__version__"}
_GEOMETRY = SHARED | {"geometry"}
_BODY = _GEOMETRY | {"body"}
_SCENE = _BODY | {"scene"}
MAY_IMPORT = {
    "__init__": set(),
    "errors": set(),
    "config": {"errors"},
    "geometry": _GEOMETRY,
    "body": _BODY,
    "scene": _SCENE,
    "model": _SCENE | {"model"},
    "mapping": _SCENE | {"mapping"},
    "sources": _SCENE | {"sources"},
    "evaluation": _SCENE | {"evaluation"},
    "fusion": _SCENE | {"fusion"},
    "synthetic": _SCENE | {"synthetic"},
    "runtime": _SCENE | {"runtime", "model", "mapping"},
    "datasets": _SCENE | {"datasets", "sources"},
    "training": _SCENE | {"training", "model", "synthetic", "evaluation", "datasets", "sources"},
    "viewer": _SCENE | {"viewer", "evaluation"},
    "report": SHARED | {"report"},
    "nodes": _SCENE | {"nodes", "model", "runtime", "fusion", "mapping", "sources"},
}
EVERYTHING = SHARED | set(MAY_IMPORT) | {"commands", "cli"}
for _name in ("commands", "cli"):
    MAY_IMPORT[_name] = EVERYTHING

ROS_MODULES = {
    "rclpy", "rcl_interfaces", "lifecycle_msgs", "builtin_interfaces", "std_msgs", "std_srvs", "geometry_msgs",
    "sensor_msgs", "nav_msgs", "visualization_msgs", "diagnostic_msgs", "rosgraph_msgs", "tf2_msgs", "tf2_ros",
    "ament_index_python", "launch", "launch_ros", "rosbag2_py", "message_filters", "cv_bridge", "sensor_msgs_py",
}
TORCH_LAYERS = {"model", "runtime", "training", "synthetic", "commands"}
CV2_LAYERS = {
    "body", "sources", "datasets", "runtime", "mapping", "viewer", "nodes", "synthetic", "model", "commands",
}
# Licence (smplx: non-commercial; evo: GPL) or fragility: only tests may use them.
PEERS = {"smplx", "evo", "motmetrics", "cv_bridge", "message_filters", "sensor_msgs_py", "tf2_ros"}


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """(dotted module or module.name, whether imported with the module, line) of every import in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    later = [x for x in ast.walk(tree) if isinstance(x, (ast.FunctionDef, ast.AsyncFunctionDef))
             or (isinstance(x, ast.If) and ast.unparse(x.test) == "TYPE_CHECKING")]
    inside = {id(node) for part in later for node in ast.walk(part)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in inside, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write it absolutely"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) not in inside, node.lineno


def violations(package: Path) -> list[str]:
    """Every import in the package that the tables above forbid, as readable lines."""
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        layer = relative.parts[0].removesuffix(".py")
        if layer not in MAY_IMPORT:
            found.append(f"{relative}: '{layer}' is not in the table of layers")
            continue
        for name, at_top, line in imports(path):
            head, *rest = name.split(".")
            where = f"{relative}:{line}"
            if head == package.name and rest:
                if rest[0] in ("msg", "srv"):
                    if layer != "nodes" and (at_top or layer != "commands"):
                        found.append(f"{where}: only nodes/ may import generated messages")
                elif rest[0] not in MAY_IMPORT[layer]:
                    found.append(f"{where}: layer '{layer}' may not import '{rest[0]}'")
                elif rest[0] == "nodes" and layer in ("commands", "cli") and at_top:
                    found.append(f"{where}: commands import nodes only inside functions")
            if head in ROS_MODULES and layer != "nodes" and (at_top or layer != "commands"):
                found.append(f"{where}: only nodes/ may import '{head}'")
            if head == "torch" and layer not in TORCH_LAYERS and not (
                    layer == "body" and relative.name.startswith("torch_")):
                found.append(f"{where}: layer '{layer}' may not import torch")
            if head == "cv2" and layer not in CV2_LAYERS:
                found.append(f"{where}: layer '{layer}' may not import cv2")
            if head in PEERS:
                found.append(f"{where}: '{head}' is a peer for tests; the package may not import it")
    return found


def test_every_import_follows_the_table_of_layers():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("geometry/a.py", "from human_scene_ros.body import skeleton", "layer 'geometry' may not import 'body'"),
        ("runtime/a.py", "def f():\n    import rclpy", "only nodes/ may import 'rclpy'"),
        ("commands/a.py", "from human_scene_ros.nodes import bag_node", "nodes only inside functions"),
        ("body/a.py", "import torch", "may not import torch"),
        ("evaluation/a.py", "import evo.core", "'evo' is a peer"),
        ("viewer/a.py", "from human_scene_ros.msg import SmplxBody", "only nodes/ may import generated messages"),
        ("extra/a.py", "import numpy", "'extra' is not in the table"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, complaint: str):
    path = tmp_path / "human_scene_ros" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (line,) = violations(tmp_path / "human_scene_ros")
    assert complaint in line


def test_no_file_is_longer_than_a_reader_can_follow():
    sources = [p for folder in ("human_scene_ros", "test", "launch", "scripts")
               for p in (REPOSITORY / folder).rglob("*.py")]
    lengths = {str(p.relative_to(REPOSITORY)): len(p.read_text(encoding="utf-8").splitlines()) for p in sources}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_every_module_says_what_it_is_and_every_folder_is_a_package():
    undocumented = [str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py")
                    if p.name != "__init__.py" and not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))]
    assert undocumented == []
    folders = {p.parent for p in PACKAGE.rglob("*.py")}
    assert [str(f.relative_to(PACKAGE)) for f in folders if not (f / "__init__.py").is_file()] == []


def test_initialisers_import_nothing_of_ours_but_extend_the_path():
    """A light `__init__` keeps the generated messages importable and the start of every command fast."""
    for path in PACKAGE.rglob("__init__.py"):
        names = [name for name, _, _ in imports(path)]
        assert set(names) <= {"pkgutil.extend_path", "__future__.annotations"}, path


def test_test_files_have_unique_names():
    """Test folders are no packages, so two files of one name would hide each other."""
    names = [p.name for p in (REPOSITORY / "test").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_nodes_do_not_overwrite_attributes_of_rclpy():
    """`self._parameters = ...` in a node replaces rclpy's own table without any error."""
    node = pytest.importorskip("rclpy.node", reason="needs rclpy; run through ./env.sh")
    lifecycle = pytest.importorskip("rclpy.lifecycle.node")
    theirs: set[str] = set()
    for module in (node, lifecycle):
        theirs |= assigned_attributes(Path(module.__file__))
    assert "_parameters" in theirs
    clashes = {path.name: sorted(assigned_attributes(path) & theirs)
               for path in (PACKAGE / "nodes").glob("*_node.py")}
    assert {name: found for name, found in clashes.items() if found} == {}


def assigned_attributes(path: Path) -> set[str]:
    """Names x of all `self.x = ...` in a file."""
    return {node.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name) and node.value.id == "self"}
