"""env.sh and scripts/make_env in copies of the checkout with stand-ins for python, colcon and uname; no network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers import REPOSITORY

FAKE_PYTHON = """#!/bin/bash
# Stands for python3, and through `-m venv` for the python of the environment it makes.
case "$*" in
  *version_info*) echo "${FAKE_VERSION:-3.11}" ;;
  "--version") echo "Python ${FAKE_VERSION:-3.11}" ;;
  *ensurepip*) [ -z "$FAKE_NO_VENV" ] ;;
  *Python.h*) [ -z "$FAKE_NO_HEADERS" ] ;;
  "-m pip --version") ;;
  "-m pip install"*) echo "$*" >>"$FAKE_LOG"; echo "pip says something"; [ -z "$FAKE_PIP_FAILS" ] ;;
  "-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; cp "$0" "$last/bin/colcon" ;;
  *" build "*) echo "colcon $*" >>"$FAKE_LOG"; mkdir -p .env/install/lib ;;
  *import_module*) ;;
  *numpy*) echo "numpy==1.26.4" ;;
  *) echo "fake python: $*" >&2; exit 9 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what env.sh and make_env need, without an environment."""
    root = tmp_path / "check out"  # a space, on purpose
    for name in ("requirements", "cmake", "msg", "srv", "overlay", "config"):
        shutil.copytree(REPOSITORY / name, root / name)
    (root / "scripts").mkdir()
    for name in ("env.sh", "CMakeLists.txt", "package.xml", "scripts/make_env"):
        shutil.copy(REPOSITORY / name, root / name)
    return root


@pytest.fixture
def ready(checkout: Path) -> Path:
    """A checkout whose environment looks made."""
    for folder in ("venv/bin", "venv/lib/python3.11/site-packages/ros_fake.libs", "install/bin", "stamps",
                   "install/lib/python3.11/site-packages"):
        (checkout / ".env" / folder).mkdir(parents=True)
    python = checkout / ".env/venv/bin/python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    (checkout / ".env/stamps/build").write_text("done\n")
    return checkout


def clean_environment(**values: str) -> dict[str, str]:
    """PATH and what is named; nothing of the environment that this test itself runs in."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", **values}


def bash(script: str, cwd: Path, **values: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", script, "caller", "caller's first argument"], cwd=cwd, capture_output=True,
                          text=True, timeout=60, check=False, env=clean_environment(**values))


def make_env(root: Path, command: str = "bash scripts/make_env", **values: str) -> subprocess.CompletedProcess[str]:
    python = root.parent / "fake_python3"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    values = {"PYTHON": str(python), "FAKE_LOG": str(root.parent / "log.txt"), **values}
    return bash(command, root, **values)


def calls(root: Path) -> list[str]:
    """What the stand-ins were asked to install and build."""
    path = root.parent / "log.txt"
    return path.read_text().splitlines() if path.is_file() else []


# --- env.sh -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("command", "code"), [("true", 0), ("false", 1), ("sh -c 'exit 7'", 7), ("", 2)])
def test_the_exit_code_is_that_of_the_command(ready: Path, command: str, code: int):
    assert bash(f"./env.sh {command}", ready).returncode == code


def test_arguments_arrive_unchanged(ready: Path):
    assert bash("./env.sh printf '<%s>' 'a b' '' '*'", ready).stdout == "<a b><><*>"


def test_before_make_env_it_says_what_to_run(checkout: Path):
    run = bash("./env.sh true", checkout)
    assert run.returncode == 1
    assert "not set up yet; run: make -C" in run.stderr
    assert bash(". ./env.sh; echo still here: $?", checkout).stdout == "still here: 1\n"


def test_sourced_under_strict_options_it_changes_paths_once_and_nothing_else(ready: Path):
    script = (". ./env.sh; first=$PATH:$LD_LIBRARY_PATH:$AMENT_PREFIX_PATH:$PYTHONPATH; options=$-\n"
              ". ./env.sh; [ \"$first\" = \"$PATH:$LD_LIBRARY_PATH:$AMENT_PREFIX_PATH:$PYTHONPATH\" ] && echo same\n"
              "echo \"$1\"; [[ $- == *u* && $- == *e* ]] && echo options kept\n"
              "[ -z \"${root:-}${name:-}${saved:-}\" ] && echo no leaks")
    run = bash(f"set -eu; {script}", ready)
    assert run.stdout.splitlines() == ["same", "caller's first argument", "options kept", "no leaks"], run.stderr


def test_paths_prefer_the_checkout_then_the_build_then_the_wheels(ready: Path):
    run = bash("./env.sh sh -c 'echo $PYTHONPATH; echo $AMENT_PREFIX_PATH; echo $PATH; echo $LD_LIBRARY_PATH'", ready,
               PYTHONPATH="/other")
    python, ament, path, library = (line.split(":") for line in run.stdout.splitlines())
    root = str(ready)
    assert python == [root, f"{root}/.env/install/lib/python3.11/site-packages"], "other software's paths are left out"
    assert ament == [f"{root}/.env/install", f"{root}/.env/venv"]
    assert path[:2] == [f"{root}/.env/install/bin", f"{root}/.env/venv/bin"]
    assert f"{root}/.env/venv/lib/python3.11/site-packages/ros_fake.libs" in library


def test_a_sourced_apt_ros_is_used(ready: Path):
    run = bash("./env.sh sh -c 'echo $ROS_DISTRO; echo $AMENT_PREFIX_PATH; echo $PYTHONPATH; "
               "echo ${_ROS_WHEELS_BOOTSTRAP_COMPLETE-unset}'", ready, ROS_DISTRO="kilted",
               AMENT_PREFIX_PATH="/opt/ros/kilted", PYTHONPATH="/opt/ros/kilted/lib/python3.12/site-packages")
    distribution, ament, python, bootstrap = run.stdout.splitlines()
    assert distribution == "kilted"
    assert ament == f"{ready}/.env/install:/opt/ros/kilted"
    assert python.endswith(":/opt/ros/kilted/lib/python3.12/site-packages")
    assert bootstrap == "unset"


def test_another_checkouts_environment_is_taken_off_first(ready: Path, tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(ready, other, symlinks=True)
    run = bash(f". '{ready}/env.sh'; . '{other}/env.sh'; echo \"$AMENT_PREFIX_PATH\"; echo \"$PATH\"; "
               "echo \"$ROS_DISTRO\"", tmp_path)
    ament, path, distribution = run.stdout.splitlines()
    assert ament == f"{other}/.env/install:{other}/.env/venv"
    assert str(ready) not in path
    assert distribution == "jazzy"


def test_discovery_stays_on_this_machine_unless_the_user_says_otherwise(ready: Path):
    script = "./env.sh sh -c 'echo ${ROS_AUTOMATIC_DISCOVERY_RANGE-unset} ${ROS_LOCALHOST_ONLY-unset}'"
    assert bash(script, ready).stdout == "LOCALHOST unset\n"
    assert bash(script, ready, ROS_AUTOMATIC_DISCOVERY_RANGE="SUBNET").stdout == "SUBNET unset\n"
    assert bash(script, ready, ROS_DISTRO="humble", AMENT_PREFIX_PATH="/opt/ros/humble").stdout == "unset 1\n"


@pytest.mark.parametrize(("free_kb", "profile"), [("65536", "fastdds_shm_small.xml"), ("1000000", "fastdds_shm.xml")])
def test_a_small_shared_memory_gets_the_small_profile(ready: Path, tmp_path: Path, free_kb: str, profile: str):
    (tmp_path / "df").write_text(f"#!/bin/sh\necho Avail\necho {free_kb}\n")
    (tmp_path / "df").chmod(0o755)
    run = bash("./env.sh sh -c 'echo $FASTRTPS_DEFAULT_PROFILES_FILE'", ready, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert run.stdout == f"{ready}/config/{profile}\n"


def test_a_profile_of_the_user_is_kept(ready: Path):
    run = bash("./env.sh sh -c 'echo $FASTRTPS_DEFAULT_PROFILES_FILE'", ready,
               FASTRTPS_DEFAULT_PROFILES_FILE="/mine.xml")
    assert run.stdout == "/mine.xml\n"


def test_another_shell_is_told_so(ready: Path):
    run = subprocess.run(["sh", "-c", ". ./env.sh"], cwd=ready, capture_output=True, text=True, timeout=60,
                         check=False, env=clean_environment())
    assert run.returncode != 0
    assert "only bash can source this file" in run.stderr


# --- make_env -----------------------------------------------------------------------------------------------------

def test_a_second_run_does_nothing(checkout: Path):
    first = make_env(checkout)
    assert first.returncode == 0, first.stderr
    install, build = calls(checkout)
    assert install.count("-m pip install") == 1 and "torch==2.13.0" in install and "constraints.txt" in install
    assert "peers.txt" not in install and "--merge-install" in build and "overlay/tf2_msgs" in build
    second = make_env(checkout)
    assert second.returncode == 0
    assert len(calls(checkout)) == 2
    assert bash("./env.sh true", checkout).returncode == 0


def test_a_failed_installation_is_shown_and_resumed(checkout: Path):
    failed = make_env(checkout, FAKE_PIP_FAILS="1")
    assert failed.returncode == 1
    assert "pip says something" in failed.stderr
    assert "exit code 1" in failed.stderr and "run 'make env' again" in failed.stderr
    assert not (checkout / ".env/stamps/packages").exists()
    assert make_env(checkout).returncode == 0
    assert len(calls(checkout)) == 3, "installed twice, built once"


def test_changed_inputs_repeat_only_their_step(checkout: Path):
    make_env(checkout)
    with (checkout / "msg/SceneStatus.msg").open("a") as file:
        file.write("# changed\n")
    make_env(checkout)
    assert [c.split()[0] for c in calls(checkout)[2:]] == ["colcon"]
    make_env(checkout, PEERS="1")
    assert "peers.txt" in calls(checkout)[-1]
    make_env(checkout, PEERS="1", TORCH="torch==2.12.0")
    assert "torch==2.12.0" in calls(checkout)[-1]


def test_an_apt_ros_gets_an_environment_that_sees_the_system(checkout: Path, tmp_path: Path):
    marker = tmp_path / "ros/share/ament_index/resource_index/packages/tf2_msgs"
    marker.parent.mkdir(parents=True)
    marker.touch()
    run = make_env(checkout, ROS_DISTRO="jazzy", AMENT_PREFIX_PATH=str(tmp_path / "ros"))
    assert run.returncode == 0, run.stderr
    install, build = calls(checkout)
    assert "apt_ros.txt" in install and "/ros.txt" not in install and "system_numpy.txt" in install
    assert (checkout / ".env/system_numpy.txt").read_text() == "numpy==1.26.4\n"
    assert "overlay/tf2_msgs" not in build


def test_another_ros_than_the_one_it_was_made_with_is_refused(checkout: Path):
    assert make_env(checkout).returncode == 0
    other = {"ROS_DISTRO": "kilted", "AMENT_PREFIX_PATH": "/opt/ros/kilted"}
    run = make_env(checkout, **other)
    assert run.returncode == 1
    assert "made with ROS 'wheels', now it is 'kilted'" in run.stderr and "make distclean env" in run.stderr
    run = bash("./env.sh true", checkout, **other)
    assert run.returncode == 1
    assert "made with ROS 'wheels', now it is 'kilted'" in run.stderr


def test_it_runs_inside_the_environment_that_it_made(checkout: Path):
    make_env(checkout)
    (checkout / "msg/SceneStatus.msg").open("a").write("# changed\n")
    run = make_env(checkout, command=". ./env.sh && bash scripts/make_env")
    assert run.returncode == 0, run.stderr
    assert len(calls(checkout)) == 3


@pytest.mark.parametrize(("missing", "named"), [("FAKE_NO_VENV", "python3-venv"), ("FAKE_NO_HEADERS", "python3-dev")])
def test_a_missing_part_of_python_is_named(checkout: Path, missing: str, named: str):
    run = make_env(checkout, **{missing: "1"})
    assert run.returncode == 1
    assert f"missing on this machine: {named}\n" in run.stderr
    assert "sudo apt-get install make g++ cmake python3-venv python3-dev" in run.stderr
    assert calls(checkout) == []


def test_missing_commands_are_named(checkout: Path, tmp_path: Path):
    tools = tmp_path / "tools"
    tools.mkdir()
    needed = ("bash", "cat", "cut", "dirname", "find", "flock", "make", "mkdir", "sha256sum", "sleep", "sort", "tail",
              "uname")
    for name in needed:
        (tools / name).symlink_to(shutil.which(name) or "/bin/false")
    run = make_env(checkout, PATH=str(tools))
    assert run.returncode == 1
    assert "missing on this machine: g++ cmake\n" in run.stderr


@pytest.mark.parametrize(("values", "text"), [
    ({"FAKE_VERSION": "3.9"}, "is Python 3.9; the pinned packages need 3.11 to 3.14"),
    ({"PYTHON": "python-that-is-not-there"}, "missing on this machine: python-that-is-not-there"),
])
def test_an_unsuitable_python_is_named(checkout: Path, values: dict[str, str], text: str):
    run = make_env(checkout, **values)
    assert run.returncode == 1
    assert text in run.stderr


def test_another_processor_is_sent_to_apt(checkout: Path, tmp_path: Path):
    (tmp_path / "uname").write_text("#!/bin/sh\necho aarch64\n")
    (tmp_path / "uname").chmod(0o755)
    run = make_env(checkout, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert run.returncode == 1
    assert "this machine is aarch64" in run.stderr and "install ROS 2 from apt" in run.stderr
