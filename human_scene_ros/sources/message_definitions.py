"""The texts of message definitions, and the `rosbags` type store that knows our messages without ROS.

Our own .msg files are found beside the checkout, in an ament prefix or in the `share/` of a pip
installation; those of other packages in any ament prefix.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from human_scene_ros.errors import MessageError

PACKAGE = "human_scene_ros"
_BUILTIN = {"bool", "byte", "char", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32",
            "int64", "uint64", "string", "wstring"}


def message_folders(package: str) -> list[Path]:
    """Existing folders that may hold `package`'s .msg files, best first."""
    here = Path(__file__).resolve()
    candidates = []
    if package == PACKAGE:
        candidates.append(here.parents[2] / "msg")
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    # An install tree keeps share/ some levels above site-packages, also when its set-up file was not sourced.
    prefixes += [Path(sys.prefix), *here.parents[3:8]]
    candidates += [prefix / "share" / package / "msg" for prefix in prefixes]
    return [c for i, c in enumerate(candidates) if c.is_dir() and c not in candidates[:i]]


def definition_text(msgtype: str) -> str:
    """Text of the .msg file of `msgtype` ("package/msg/Name").

    Raises:
        MessageError: No such file; names the folders that were looked into.
    """
    package, name = split_type(msgtype)
    folders = message_folders(package)
    for folder in folders:
        path = folder / f"{name}.msg"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise MessageError(f"no definition of {msgtype}: looked for {name}.msg in "
                       f"{[str(f) for f in folders] or 'no folder'}; source the workspace that has {package}")


def split_type(msgtype: str) -> tuple[str, str]:
    """("package", "Name") of "package/msg/Name".

    Raises:
        MessageError: Another form, such as the two-part names of the first ROS 2 releases.
    """
    parts = msgtype.split("/")
    if len(parts) != 3 or parts[1] != "msg":
        raise MessageError(f"message type '{msgtype}' is not of the form package/msg/Name")
    return parts[0], parts[2]


def register_type(store: Typestore, msgtype: str) -> None:
    """Add `msgtype` and whatever it is made of to `store`, from installed .msg files.

    Raises:
        MessageError: A definition is not found.
    """
    if msgtype in store.fielddefs:
        return
    types: dict[str, object] = {}
    pending = [msgtype]
    while pending:
        current = pending.pop()
        if current in store.fielddefs or current in types:
            continue
        text = definition_text(current)
        types.update(get_types_from_msg(text, current))
        pending += _dependencies(text, split_type(current)[0])
    store.register(types)  # type: ignore[arg-type]


def new_typestore() -> Typestore:
    """A type store of ROS 2 Jazzy's messages plus all of ours."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for folder in message_folders(PACKAGE):
        for path in sorted(folder.glob("*.msg")):
            register_type(store, f"{PACKAGE}/msg/{path.stem}")
    return store


@functools.cache
def shared_typestore() -> Typestore:
    """The same store for all writers of this process (making one takes some 0.1 s)."""
    return new_typestore()


def _dependencies(text: str, package: str) -> list[str]:
    found = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) < 2:
            continue
        name = re.split(r"[\[<]", words[0], maxsplit=1)[0]
        if name in _BUILTIN:
            continue
        if name == "Header":
            name = "std_msgs/Header"
        parts = name.split("/") if "/" in name else [package, name]
        found.append(f"{parts[0]}/msg/{parts[-1]}")
    return found
