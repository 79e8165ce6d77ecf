"""Metric human bodies inside a metric map from ordinary cameras, over ROS 2."""

from pkgutil import extend_path

# The generated `msg` and `srv` live in the install tree; without this line the source tree hides them.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
