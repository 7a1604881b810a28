"""What loading a checkpoint raises."""

from __future__ import annotations

from fvs_ros.errors import ReadableError


class CheckpointError(ReadableError, ValueError):
    """A checkpoint that cannot be used, and why."""


class HubError(CheckpointError):
    """A checkpoint that the hub did not give; another try may succeed."""


def described(error: Exception) -> str:
    """What an error of another library says, or its kind where that is nothing."""
    return str(error) or type(error).__name__
