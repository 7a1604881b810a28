"""A skip says what is true: a module that is missing skips, a broken one fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from needs import needed


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sound_room.door`, and `broken_room`, which imports something that nobody has."""
    for name, text in (("sound_room/__init__", ""), ("sound_room/door", "OPEN = 1"), ("broken_room", "import nobody")):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


def test_what_is_installed_is_imported(modules: None) -> None:
    assert needed("sound_room.door", "needs a door").OPEN == 1


@pytest.mark.parametrize("module", ["nobody_room", "nobody_room.door", "sound_room.window"])
def test_what_is_missing_skips_with_the_reason(module: str, modules: None) -> None:
    with pytest.raises(pytest.skip.Exception, match="needs a window"):
        needed(module, "needs a window")


def test_what_is_broken_fails(modules: None) -> None:
    with pytest.raises(ModuleNotFoundError, match="nobody"):
        needed("broken_room", "needs a room")
