"""Where MuJoCo cannot draw, what needs patrols drawn is skipped for that reason."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fvs_ros.patrol.errors import RenderError


@contextmanager
def drawing() -> Iterator[None]:
    """Within it, a renderer that cannot be made skips the test."""
    try:
        yield
    except RenderError as error:
        pytest.skip(f"patrols cannot be drawn here: {error}")
