"""The model on a command line."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from fvs_ros.model.arguments import add_checkpoint_arguments, load_model
from fvs_ros.model.checkpoint import CheckpointError
from fvs_ros.model.names import TINY


def test_without_a_name_the_model_has_random_weights_and_says_so(capsys):
    parser = argparse.ArgumentParser()
    add_checkpoint_arguments(parser)
    parsed = parser.parse_args([])
    assert (parsed.model, parsed.device, parsed.dtype) == (TINY, "auto", "auto")
    assert parser.parse_args(["--model", "M"]).model == "M"
    assert load_model(parsed).name == TINY
    assert "tiny has random weights: its answers are NOISE" in capsys.readouterr().err


def test_no_heavy_library_is_imported_to_declare_arguments():
    program = (
        "import sys, argparse; from fvs_ros import cli; cli.build_parser(); "
        "print([name for name in ('torch', 'transformers', 'cv2', 'rclpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("device", ["abc", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device, tmp_path):
    arguments = argparse.Namespace(model=str(tmp_path), device=device, dtype="auto")
    with pytest.raises(CheckpointError, match=f"device is '{device}'"):
        load_model(arguments)
