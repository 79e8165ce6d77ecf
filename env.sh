#!/usr/bin/env bash
# The project's environment.
#   ./env.sh CMD [ARG...]    runs a command in it
#   . env.sh                 sets it up in the current shell (bash)
# `make env` must have run once. A sourced apt ROS is used when there is one, else the wheels in .env/venv.

if [ -z "${BASH_VERSION:-}" ]; then
  echo "env.sh: only bash can source this file; in another shell use: ./env.sh CMD [ARG...]" >&2
  return 1 2>/dev/null || exit 1
fi

# Everything happens in functions: nothing leaks into the caller's shell but the exported variables, and
# nothing here depends on the caller's options (set -u, set -e) or arguments.
_human_scene_prepend() {  # NAME FOLDER: puts FOLDER first in the path list NAME
  local old="${!1:-}"
  export "$1=$2${old:+:$old}"
}

_human_scene_activate() {
  local root="$1" name site saved made_with="" sourced=wheels
  local venv="$root/.env/venv" install="$root/.env/install"
  [ "${HUMAN_SCENE_ENV:-}" = "$root" ] && [ -z "${HUMAN_SCENE_BUILDING:-}" ] && return 0

  if [ ! -x "$venv/bin/python" ] || { [ -z "${HUMAN_SCENE_BUILDING:-}" ] && [ ! -f "$root/.env/stamps/build" ]; }; then
    echo "env.sh: the environment is not set up yet; run: make -C '$root' env" >&2
    return 1
  fi

  # An environment that is set up already is taken off first; its paths would look like a sourced ROS.
  for name in PATH PYTHONPATH LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH ROS_DISTRO; do
    saved="HUMAN_SCENE_BEFORE_$name"
    if [ -n "${HUMAN_SCENE_ENV:-}" ]; then
      if [ -n "${!saved:-}" ]; then export "$name=${!saved}"; else unset "$name"; fi
    fi
    export "$saved=${!name:-}"
  done

  if [ -n "${ROS_DISTRO:-}" ] && [ -n "${AMENT_PREFIX_PATH:-}" ]; then sourced="$ROS_DISTRO"; fi
  if [ -f "$root/.env/stamps/ros" ]; then read -r made_with <"$root/.env/stamps/ros"; fi
  if [ -n "$made_with" ] && [ "$made_with" != "$sourced" ]; then
    echo "env.sh: this environment was made with ROS '$made_with', now it is '$sourced'; in a shell where it fits" >&2
    echo "        (source /opt/ros/DISTRO/setup.bash first, or do not), or start over: make distclean env" >&2
    return 1
  fi

  if [ "$sourced" = wheels ]; then
    # ROS 2 from wheels. PYTHONPATH of other software could only hide parts of it.
    export PYTHONPATH=""
    export AMENT_PREFIX_PATH="$venv" CMAKE_PREFIX_PATH="$venv"
    export ROS_VERSION=2 ROS_PYTHON_VERSION=3 ROS_DISTRO=jazzy
    export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1  # the library path is set here: python need not start itself again
    for name in "$venv"/lib/python3.*/site-packages/ros_*.libs; do
      if [ -d "$name" ]; then _human_scene_prepend LD_LIBRARY_PATH "$name"; fi
    done
    _human_scene_prepend LD_LIBRARY_PATH "$venv/lib"
  fi
  export VIRTUAL_ENV="$venv"
  _human_scene_prepend PATH "$venv/bin"

  if [ -z "${HUMAN_SCENE_BUILDING:-}" ]; then  # colcon must not see what it is about to replace
    _human_scene_prepend PATH "$install/bin"
    _human_scene_prepend LD_LIBRARY_PATH "$install/lib"
    _human_scene_prepend AMENT_PREFIX_PATH "$install"
    _human_scene_prepend CMAKE_PREFIX_PATH "$install"
    for site in "$install"/lib/python3*/site-packages "$install"/local/lib/python3*/dist-packages; do
      if [ -d "$site" ]; then _human_scene_prepend PYTHONPATH "$site"; fi
    done
    _human_scene_prepend PYTHONPATH "$root"  # the checkout first: edits and new modules need no build
  fi

  # This machine only, unless the user decided otherwise.
  if [ "${ROS_DISTRO:-}" = humble ]; then
    export ROS_LOCALHOST_ONLY="${ROS_LOCALHOST_ONLY:-1}"
  else
    export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"
  fi
  # Shared memory with a segment that holds images and clouds; the default loses half of them when busy.
  # Each process takes a segment: five of 36 MB must fit, else the small profile.
  if [ -z "${FASTRTPS_DEFAULT_PROFILES_FILE:-}${FASTDDS_DEFAULT_PROFILES_FILE:-}" ]; then
    local profile="$root/config/fastdds_shm.xml" free_kb
    free_kb=$(df -k --output=avail /dev/shm 2>/dev/null | tail -n 1 | tr -d ' ')
    if [ "${free_kb:-0}" -lt $((5 * 36 * 1024)) ]; then profile="$root/config/fastdds_shm_small.xml"; fi
    export FASTRTPS_DEFAULT_PROFILES_FILE="$profile" FASTDDS_DEFAULT_PROFILES_FILE="$profile"
  fi
  if [ -z "${HUMAN_SCENE_BUILDING:-}" ]; then export HUMAN_SCENE_ENV="$root"; fi
}

if [ "${BASH_SOURCE[0]}" != "$0" ]; then
  _human_scene_activate "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
else
  if [ "$#" -eq 0 ]; then
    echo "usage: ./env.sh CMD [ARG...]     or, in bash: . env.sh" >&2
    exit 2
  fi
  _human_scene_activate "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)" || exit 1
  exec "$@"
fi
