"""QoS of every topic: what we offer, how we ask, and a warning instead of silence when both do not fit.

Everything stays overridable from parameters: `qos_overrides.<topic>.{publisher,subscription}.{history,depth,
reliability}`. The one exception is the reliability of camera topics, which `input.reliability` decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

if TYPE_CHECKING:
    from rclpy.node import Node


def reliable(depth: int) -> QoSProfile:
    """Results: a reliable publisher is matched by RViz (reliable), Nav2 (best effort) and recorders alike."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.VOLATILE)


def latched(depth: int = 1) -> QoSProfile:
    """Map, status and static transforms: late subscribers get the last message."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL)


def auto_reliability(node: Node, topic: str, choice: str) -> ReliabilityPolicy:
    """The reliability to ask for on a camera topic.

    Args:
        node: Used to look at the publishers that are known at this moment.
        topic: Resolved or relative name.
        choice: "reliable", "best_effort", or "auto": reliable unless a publisher offers only best effort.
            Large images over best effort vanish on default transports, hence reliable where it can be had.
    """
    if choice != "auto":
        return ReliabilityPolicy.RELIABLE if choice == "reliable" else ReliabilityPolicy.BEST_EFFORT
    offers = [info.qos_profile.reliability for info in node.get_publishers_info_by_topic(topic)]
    all_reliable = all(offer == ReliabilityPolicy.RELIABLE for offer in offers)
    return ReliabilityPolicy.RELIABLE if all_reliable else ReliabilityPolicy.BEST_EFFORT


def camera_qos(reliability: ReliabilityPolicy, depth: int) -> QoSProfile:
    """What a subscription to a camera topic asks for."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=reliability,
                      durability=DurabilityPolicy.VOLATILE)


def describe(profile: QoSProfile) -> str:
    """Short text for logs and diagnostics: "reliable, volatile, keep_last 10"."""
    return (f"{profile.reliability.name.lower()}, {profile.durability.name.lower()}, "
            f"{profile.history.name.lower()} {profile.depth}")


def offered(node: Node, topic: str) -> str:
    """What the publishers of `topic` offer, for logs and diagnostics."""
    infos = node.get_publishers_info_by_topic(topic)
    if not infos:
        return "no publisher"
    return "; ".join(f"{_name(info)}: {info.qos_profile.reliability.name.lower()}, "
                     f"{info.qos_profile.durability.name.lower()}" for info in infos)


def _name(info: Any) -> str:
    """An endpoint is discovered a moment before the name of its node."""
    if "UNKNOWN" in info.node_name:
        return "a new node"
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def create_publisher(node: Node, message_class: type, topic: str, profile: QoSProfile) -> Any:
    """A publisher with overridable QoS that warns when a subscriber asks for more than it offers."""

    def on_incompatible(event: Any) -> None:
        policy = qos_policy_name_from_kind(QoSPolicyKind(event.last_policy_kind))
        node.get_logger().warning(
            f"{topic}: {event.total_count} subscriber(s) got nothing because their {policy} does not fit; "
            f"offered: {describe(profile)}")

    return node.create_publisher(
        message_class, topic, profile,
        event_callbacks=PublisherEventCallbacks(incompatible_qos=on_incompatible),
        qos_overriding_options=QoSOverridingOptions.with_default_policies())


def create_camera_subscription(node: Node, message_class: type, topic: str, callback: Callable[[Any], None],
                               profile: QoSProfile, on_incompatible: Callable[[], None] | None = None) -> Any:
    """A subscription that warns with both profiles when a publisher offers less than it asks for.

    Args:
        node: Owner.
        message_class: Message type.
        topic: Relative or absolute name.
        callback: Called with each message.
        profile: From `camera_qos`.
        on_incompatible: Called after the warning, for instance to ask again with less.
    """

    def warn(event: Any) -> None:
        policy = qos_policy_name_from_kind(QoSPolicyKind(event.last_policy_kind))
        node.get_logger().warning(f"{topic}: incompatible {policy}; asked: {describe(profile)}; "
                                  f"offered: {offered(node, topic)}")
        if on_incompatible is not None:
            on_incompatible()

    return node.create_subscription(
        message_class, topic, callback, profile,
        event_callbacks=SubscriptionEventCallbacks(incompatible_qos=warn),
        qos_overriding_options=QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)))
