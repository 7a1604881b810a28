"""The model on a command line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from fvs_ros.commands.model_arguments import add_checkpoint_arguments, load_model
from fvs_ros.model.checkpoint import CheckpointError
from fvs_ros.model.names import EMBEDDED, TINY


def parse(*arguments):
    parser = argparse.ArgumentParser()
    add_checkpoint_arguments(parser)
    return parser.parse_args(list(arguments))


def test_without_a_name_it_is_the_one_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    parsed = parse()
    assert (parsed.model, parsed.device, parsed.dtype) == (EMBEDDED, "auto", "auto")
    assert parse("--model", "M").model == "M"
    model = load_model(parsed)
    assert (model.name, model.memory_config.window_slots) == (EMBEDDED, 1)
    assert "NOISE" not in capsys.readouterr().err


def test_random_weights_say_that_their_answers_are_noise(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_model(parse("--model", TINY)).name == TINY
    assert "tiny has random weights: its answers are NOISE" in capsys.readouterr().err


@pytest.mark.parametrize("name", [EMBEDDED, TINY])
def test_a_folder_of_that_name_comes_first(name, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load_model(parse("--model", name))


def test_no_heavy_library_is_imported_to_declare_arguments() -> None:
    program = (
        "import sys, argparse; from fvs_ros import cli; cli.build_parser(); "
        "print([name for name in ('torch', 'transformers', 'cv2', 'rclpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("device", ["abc", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device, tmp_path: Path) -> None:
    arguments = argparse.Namespace(model=str(tmp_path), device=device, dtype="auto")
    with pytest.raises(CheckpointError, match=f"device is '{device}'"):
        load_model(arguments)
