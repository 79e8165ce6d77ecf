"""The error family of the package: every message says what came, what was expected and what to do."""

from __future__ import annotations


class HumanSceneError(Exception):
    """Base of all errors that a user of this package can cause and mend."""


class ShapeError(HumanSceneError, ValueError):
    """An array has the wrong shape or dtype, or holds values that are not finite."""


class ConfigError(HumanSceneError, ValueError):
    """A configuration key is unknown or its value is out of range."""


class CheckpointError(HumanSceneError, RuntimeError):
    """Weights are missing, damaged or belong to another network."""


class BodyModelError(HumanSceneError, RuntimeError):
    """A body model file is missing, damaged or lacks a key."""


class ImageError(HumanSceneError, ValueError):
    """An image message cannot be decoded."""


class CalibrationError(HumanSceneError, ValueError):
    """Camera intrinsics are unusable: not finite, not positive or for another image size."""


class SourceError(HumanSceneError, RuntimeError):
    """A bag, video or folder cannot be read as asked."""


class MessageError(HumanSceneError, ValueError):
    """A message and the data for it do not fit (length, missing or unknown field)."""
