"""What is raised for patrols that cannot be made or drawn as asked."""

from __future__ import annotations

from fvs_ros.errors import ReadableError


class PatrolError(ReadableError, ValueError):
    """A setting or an episode that cannot be used. The message names both numbers and what to do."""


class RenderError(ReadableError, RuntimeError):
    """MuJoCo or its OpenGL library cannot be used here. The message says what to install."""
