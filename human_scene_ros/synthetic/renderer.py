"""Choice of the renderer: OpenGL where a context can be made, numpy elsewhere."""

from __future__ import annotations

import functools
import logging
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from human_scene_ros.errors import ConfigError
from human_scene_ros.geometry.camera import PinholeCamera
from human_scene_ros.synthetic.shapes import Drawing

_log = logging.getLogger(__name__)


class Renderer(Protocol):
    """What both renderers offer."""

    name: str

    def render(
        self, drawing: Drawing, camera: PinholeCamera
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
        """RGB (H, W, 3) uint8, depth (H, W) float32 metres along z (0 = sky), instance (H, W) uint8."""


@functools.lru_cache(maxsize=4)
def make_renderer(width: int, height: int, smooth: bool = True, choice: str = "auto") -> Renderer:
    """The renderer for one image size, shared by all worlds of this process.

    Args:
        width: Image width, pixels.
        height: Image height, pixels.
        smooth: Several samples per pixel (smooth edges).
        choice: "auto", "gl" or "numpy".

    Raises:
        ConfigError: Unknown choice, or "gl" where no OpenGL context can be made.
    """
    if choice not in ("auto", "gl", "numpy"):
        raise ConfigError(f"renderer = {choice!r}: expected 'auto', 'gl' or 'numpy'")
    if choice != "numpy":
        try:
            from human_scene_ros.synthetic.render_gl import GlRenderer

            renderer = GlRenderer(width, height, smooth)
            _log.info("synthetic worlds are drawn with OpenGL on %s", renderer.device)
            return renderer
        except Exception as error:  # whatever the GL stack of this machine throws: the answer is the same
            if choice == "gl":
                raise ConfigError(
                    f"renderer = 'gl': no OpenGL context can be made ({error}); "
                    f"install moderngl, libegl1 and libgl1-mesa-dri, or use 'numpy'"
                ) from error
            _log.warning(
                "no OpenGL context (%s); synthetic worlds are drawn in numpy, about 5 times slower", error
            )
    from human_scene_ros.synthetic.render_numpy import NumpyRenderer

    return NumpyRenderer(width, height, smooth)
