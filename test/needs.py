"""What single tests need that may not be here. Where it is missing they are skipped, and say what to install."""

from __future__ import annotations

import importlib
import shutil
from importlib.util import find_spec
from types import ModuleType

import pytest

MCP = "needs the MCP SDK: pip install 'mcp>=2,<3'"
STARLETTE = "needs Starlette: pip install starlette"
CATKIN = "needs catkin_pkg: pip install 'fvs_ros[lint]'"


def needed(module: str, reason: str) -> ModuleType:
    """A module. Without it the test is skipped, or the file whose import asks for it.

    One that is here and cannot be imported fails the test. `pytest.importorskip` would skip that too, for a reason that
    is not true, where something that the module itself imports is missing.
    """
    # The report names the line that asks.
    __tracebackhide__ = True
    parts = module.split(".")
    if any(find_spec(".".join(parts[:end])) is None for end in range(1, len(parts) + 1)):
        pytest.skip(reason, allow_module_level=True)
    return importlib.import_module(module)


def chromium() -> str:
    """The path of Debian's browser, or of one like it; without any the test is skipped."""
    __tracebackhide__ = True
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    return found
