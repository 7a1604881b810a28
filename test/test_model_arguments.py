"""The model on a command line."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from fvs_ros.model.arguments import add_checkpoint_arguments


def test_a_model_is_asked_for_unless_there_is_work_without_one():
    parser = argparse.ArgumentParser()
    add_checkpoint_arguments(parser, optional=True)
    parsed = parser.parse_args([])
    assert (parsed.device, parsed.dtype) == ("auto", "auto")
    named = argparse.ArgumentParser()
    add_checkpoint_arguments(named)
    assert named.parse_args(["--model", "M"]).model == "M"


def test_no_heavy_library_is_imported_to_declare_arguments():
    program = (
        "import sys, argparse; from fvs_ros import cli; cli.build_parser(); "
        "print([name for name in ('torch', 'transformers', 'cv2', 'rclpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("device", ["abc", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device, tmp_path):
    from fvs_ros.model.arguments import load_model
    from fvs_ros.model.checkpoint import CheckpointError

    arguments = argparse.Namespace(model=str(tmp_path), device=device, dtype="auto")
    with pytest.raises(CheckpointError, match=f"device is '{device}'"):
        load_model(arguments)
