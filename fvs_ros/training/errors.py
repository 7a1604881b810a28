"""The error for recipes, data and runs that cannot be used as they are."""

from __future__ import annotations

from fvs_ros.errors import ReadableError


class TrainingError(ReadableError):
    """A recipe, data or a run that cannot be used. The message names the file, the place in it, and what to do."""
