"""The file of watches: what it may hold, and what is said of one that makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import require_ros

require_ros()

from fvs_ros.nodes.watches_file import FileWatch, read_watches
from fvs_ros.stream.watch import WatchOptions


def written(folder: Path, text: str) -> Path:
    path = folder / "watches.yaml"
    path.write_text(text)
    return path


def test_a_file_of_watches_is_read(tmp_path: Path) -> None:
    text = """watches:
  - {name: door, condition: the door is open, with_images: true}
  - {name: kitchen, condition: you are in the kitchen, period_s: 5, hold_s: 2.5, once: true, timeout_s: 60}
"""
    assert read_watches(written(tmp_path, text)) == [
        FileWatch("the door is open", WatchOptions(name="door", with_images=True)),
        FileWatch("you are in the kitchen", WatchOptions(5.0, 2.5, True, 60.0, name="kitchen")),
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("watches: {", "cannot be read"),
        ("[]", "must hold `watches:`"),
        ("watches: []\nmore: 1", "must hold `watches:`"),
        ("watches: [door]", "watch 1 of 1: it is 'door'"),
        ("watches: [{name: door, condition: yes}]", "condition is True; give a text"),
        ("watches: [{name: door, condition: open, hold: 1}]", "hold is unknown"),
        ("watches: [{name: door, condition: open, hold_s: soon}]", "hold_s is 'soon'; give seconds"),
        ("watches: [{name: door, condition: open, hold_s: .nan}]", "hold_s is nan"),
        ("watches: [{name: door, condition: open, once: 1}]", "once is 1; give true or false"),
        ("watches: [{name: a, condition: x}, {name: a, condition: y}]", "watch 2 of 2: the name 'a' is taken"),
    ],
)
def test_a_file_that_makes_no_sense_says_where(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r"watches\.yaml") as caught:
        read_watches(written(tmp_path, text))
    assert hint in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml cannot be read"):
        read_watches(tmp_path / "nowhere.yaml")
