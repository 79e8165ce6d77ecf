#!/usr/bin/env python3
"""Prints docs/parameters.md: every parameter of every node, from the dataclasses that declare them.

    ./env.sh python scripts/make_parameter_docs.py > docs/parameters.md

A test compares the file with this output. Needs ROS, because a node's dataclass stands beside the node.
"""

from __future__ import annotations

from human_scene_ros.nodes.bag_node import BagConfig
from human_scene_ros.nodes.fusion_config import config_for
from human_scene_ros.nodes.markers_node import MarkersConfig
from human_scene_ros.nodes.parameters import Parameter, parameters_of
from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig
from human_scene_ros.nodes.record_node import RecordConfig

NODES = (("reconstructor_node", "human_scene", ReconstructorConfig),
         ("fusion_node", "human_scene_fusion", config_for(("CAMERA",))),
         ("markers_node", "human_scene_markers", MarkersConfig),
         ("bag_node", "human_scene_bag", BagConfig),
         ("record_node", "human_scene_record", RecordConfig))

HEAD = """# Parameters

Every parameter of every node with its default. *dynamic* ones may be set while the node runs (`ros2 param set`);
the others are read at the start. A value of the wrong type or out of range, or a name that does not exist, ends the
start with a sentence that says so. `config/reconstructor.yaml` and `config/multi_camera.yaml` hold the same defaults as
files to copy. `CAMERA` stands for every name that the fusion's parameter `cameras` lists.
"""


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for executable, node, config in NODES:
        parts.append(f"## `{executable}` (node `{node}`)\n\n| parameter | default | meaning |\n|---|---|---|")
        parts.append("\n".join(row(p) for p in parameters_of(config)) + "\n")
    return "\n".join(parts)


def row(parameter: Parameter) -> str:
    """One row of the table."""
    notes = []
    if parameter.choices:
        notes.append("one of " + ", ".join(f"`{c}`" for c in parameter.choices))
    elif parameter.low is not None or parameter.high is not None:
        low, high = ("" if v is None else f"{v:g}" for v in (parameter.low, parameter.high))
        notes.append(f"{low} to {high}")
    if parameter.dynamic:
        notes.append("*dynamic*")
    meaning = parameter.text.replace("|", "\\|") + (f" ({'; '.join(notes)})" if notes else "")
    return f"| `{parameter.name}` | `{shown(parameter.default)}` | {meaning} |"


def shown(value: object) -> str:
    """A default as one writes it in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{v}"' for v in value) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


if __name__ == "__main__":
    print(render(), end="")
