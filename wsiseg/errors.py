"""Every error that wsiseg raises on purpose, and the category of its warnings.

::

    WsisegError(Exception)
    ├── ConfigError(ValueError)
    ├── SlideError(OSError)
    │   ├── SlideOpenError
    │   ├── SlideReadError
    │   └── MppError
    ├── StoreError(OSError)
    ├── CheckpointError(ValueError)
    ├── DataError(ValueError)
    ├── TrainingError(ArithmeticError)
    ├── ModelError(ArithmeticError)
    ├── GeometryError(ValueError)
    ├── GeoJsonError(ValueError)
    ├── ClusterError(RuntimeError)
    └── MissingDependencyError(ImportError)
    WsisegWarning(UserWarning)
"""

__all__ = [
    "CheckpointError",
    "ClusterError",
    "ConfigError",
    "DataError",
    "GeoJsonError",
    "GeometryError",
    "MissingDependencyError",
    "ModelError",
    "MppError",
    "SlideError",
    "SlideOpenError",
    "SlideReadError",
    "StoreError",
    "TrainingError",
    "WsisegError",
    "WsisegWarning",
]


class WsisegError(Exception):
    """Base of all errors raised on purpose; its message is meant for the user."""


class ConfigError(WsisegError, ValueError):
    """A setting is unknown, missing or out of range."""


class SlideError(WsisegError, OSError):
    """A slide cannot be used."""


class SlideOpenError(SlideError):
    """No reader opens the file."""


class SlideReadError(SlideError):
    """The file opened, but its pixels cannot be read."""


class MppError(SlideError):
    """The slide's micrometres per pixel are missing or implausible."""


class StoreError(WsisegError, OSError):
    """A Zarr store is missing, incomplete or not ours."""


class CheckpointError(WsisegError, ValueError):
    """A file is not a checkpoint, or does not fit the model."""


class DataError(WsisegError, ValueError):
    """Training or evaluation data are wrong; lists every problem found."""


class TrainingError(WsisegError, ArithmeticError):
    """A loss or a weight is no longer finite."""


class ModelError(WsisegError, ArithmeticError):
    """A model's output is not finite."""


class GeometryError(WsisegError, ValueError):
    """A box, grid or array shape is impossible."""


class GeoJsonError(WsisegError, ValueError):
    """A GeoJSON file breaks a rule; names the feature and the rule."""


class ClusterError(WsisegError, RuntimeError):
    """The machines that run the blocks are unreachable, were lost, or run another wsiseg."""


class MissingDependencyError(WsisegError, ImportError):
    """An optional package is not installed; gives the exact install line."""


class WsisegWarning(UserWarning):
    """Something that the user should know about a result that was produced nonetheless."""
