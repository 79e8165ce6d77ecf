"""What README and docs say about names, files and defaults is what the code has."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from human_scene_ros.cli import COMMANDS
from human_scene_ros.nodes.parameters import parameters_of
from human_scene_ros.nodes.reconstructor_config import ReconstructorConfig

from helpers import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Text between a heading and the next of the same level."""
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_the_parameter_page_is_what_the_dataclasses_declare():
    pytest.importorskip("rclpy")
    made = subprocess.run([sys.executable, "scripts/make_parameter_docs.py"], cwd=REPOSITORY, capture_output=True,
                          text=True, check=True).stdout
    assert (REPOSITORY / "docs" / "parameters.md").read_text(encoding="utf-8") == made, (
        "make it anew: ./env.sh python scripts/make_parameter_docs.py > docs/parameters.md")


def test_parameters_in_the_readme_exist():
    known = {p.name for p in parameters_of(ReconstructorConfig)}
    groups = "model|input|bodies|track|smoothing|cloud|map|tf"
    named = set(re.findall(rf"`((?:{groups})\.[a-z_]+)`", README)) - {"bodies.jsonl"}
    assert len(named) > 10
    assert named <= known


def test_defaults_in_the_readme_are_the_defaults():
    """Rows with one parameter and a plain number or word in the second column."""
    defaults = {p.name: p.default for p in parameters_of(ReconstructorConfig)}
    rows = re.findall(r"^\| `([a-z_.]+)` \| `?([\w.]+)`?(?: [a-zA-Z]+)? \|", section("Parameters that matter"), re.M)
    assert len(rows) >= 5
    for name, shown in rows:
        expected = defaults[name]
        assert (float(shown) if isinstance(expected, float) else shown) == (
            str(expected).lower() if isinstance(expected, bool) else expected), name


def test_topics_in_the_readme_are_published_or_subscribed():
    code = "".join(p.read_text(encoding="utf-8") for p in (REPOSITORY / "human_scene_ros" / "nodes").glob("*.py"))
    topics = re.findall(r"`(~/[a-z_/]+)`", section("Topics"))
    assert len(topics) > 12
    for topic in topics:
        assert topic in code or topic.removeprefix("~/") in code, topic


def test_every_command_is_in_the_readme_and_none_else():
    rows = [line.split("|")[1] for line in section("Command line").splitlines() if line.startswith("| `")][1:]
    assert {name for row in rows for name in re.findall(r"`([a-z-]+)", row)} == set(COMMANDS)


def test_linked_files_and_named_folders_exist():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPOSITORY / path).exists(), path
    for folder in re.findall(r"^ {6}(\w+)/ ", section("File tree"), re.M):
        assert (REPOSITORY / "human_scene_ros" / folder).is_dir(), folder


def test_make_targets_in_the_readme_exist():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^    )make ([a-z]+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_dependencies_page_names_what_is_required_and_nothing_else():
    page = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8").split("## Not used")[0]
    named = set(re.findall(r"^\| ([\w.-]+) \|", page, re.M)) - {"package", "---", "torch"}
    required = {line.split("#")[0].strip() for line in
                (REPOSITORY / "requirements" / "run.txt").read_text().splitlines()} - {""}
    assert {n.lower() for n in named} == {r.lower() for r in required}
