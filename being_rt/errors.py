"""Every error that being_rt raises on purpose.

Each carries one line that says what is wrong, where, and what to do. They derive from :class:`BeingError`, so an
application can catch the family, and from the built-in type that fits, so that ordinary ``except ValueError`` works.
"""

from __future__ import annotations


class BeingError(Exception):
    """Base of all errors raised by being_rt."""


class InvalidParameterError(BeingError, ValueError):
    """A function was called with a value, shape or dtype that it cannot accept."""


class FileFormatError(BeingError, ValueError):
    """A file is damaged, truncated, hostile, or not of the expected kind."""


class UnsupportedVersionError(FileFormatError):
    """A file was written by a newer version of being_rt than this one."""


class ModelFileError(FileFormatError):
    """A FLAME model file cannot be read or is not a FLAME model."""


class AvatarFileError(FileFormatError):
    """A ``.being`` file cannot be read or does not hold a valid avatar."""


class DatasetError(FileFormatError):
    """A data set, or what another tracker wrote, cannot be read, is not valid, or cannot be written."""


class CheckpointError(FileFormatError):
    """A training checkpoint cannot be read, does not fit the run, or cannot be written."""


class TrainingError(BeingError, RuntimeError):
    """A training run cannot go on: it diverged, or the device has too little memory."""


class TrackError(BeingError, ValueError):
    """A video or picture that cannot be tracked, or a network for it that cannot be had."""


class AudioError(BeingError, ValueError):
    """Sound that cannot be read or used."""


class VideoError(BeingError, OSError):
    """A video file cannot be written."""


class MissingDependencyError(BeingError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""


class DeviceError(BeingError, RuntimeError):
    """The requested device does not exist here or was not built in."""
