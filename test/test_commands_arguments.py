"""Types of arguments: what they take, and what they say about anything else."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fvs_ros.commands.arguments import existing_file, positive


def test_a_file_must_exist_and_be_none_of_the_folders(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with pytest.raises(argparse.ArgumentTypeError, match=r"a\.safetensors does not exist"):
        existing_file(str(file))
    file.touch()
    assert existing_file(str(file)) == file
    with pytest.raises(argparse.ArgumentTypeError, match="is a folder, a file is needed"):
        existing_file(str(tmp_path))


def test_a_number_above_0_is_taken() -> None:
    assert positive("2.5") == 2.5


@pytest.mark.parametrize("text", ["1e-320", "9.9e-7", "1e300"])
def test_a_number_with_which_times_would_be_infinite_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is not a number from 1e-06 to 1e"):
        positive(text)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_any_other_word_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is not a number above 0"):
        positive(text)
