"""The model on a command line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from fvs_ros import cli
from fvs_ros.commands.model_arguments import add_checkpoint_arguments, load_model
from fvs_ros.model.checkpoint import CheckpointError
from fvs_ros.model.names import EMBEDDED, EMBEDDED_RECORDING, TINY
from fvs_ros.model.tiny import write_tiny_checkpoint


def parse(*arguments: str) -> argparse.Namespace:
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


def test_the_methods_of_the_memory_are_overridden() -> None:
    config = load_model(parse("--model", TINY, "--temporal-method", "sample", "--spatial-method", "sample"))
    assert (config.memory_config.temporal_method, config.memory_config.spatial_method) == ("sample", "sample")
    with pytest.raises(SystemExit):
        parse("--spatial-method", "uniform")


def test_the_sizes_of_the_memory_are_overridden() -> None:
    config = load_model(
        parse("--model", TINY, "--csm-slots", "5", "--dam-slots", "3", "--window-slots", "2")
    ).memory_config
    assert (config.csm_slots, config.dam_slots, config.window_slots) == (5, 3, 2)
    with pytest.raises(CheckpointError, match="csm_slots is 0, dam_slots 0"):
        load_model(parse("--model", TINY, "--csm-slots", "0", "--dam-slots", "0"))


def test_the_weights_are_quantised_where_that_is_asked_for() -> None:
    plain, int8 = (load_model(parse("--model", TINY, "--quantization", bits)) for bits in ("none", "int8"))
    assert parse().quantization == "none"
    assert plain.fingerprint() != int8.fingerprint()
    with pytest.raises(SystemExit):
        parse("--quantization", "int2")


def test_random_weights_say_that_their_answers_are_noise(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_model(parse("--model", TINY)).name == TINY
    assert "tiny has random weights: its answers are NOISE" in capsys.readouterr().err


@pytest.mark.parametrize("name", [EMBEDDED, TINY])
def test_a_folder_of_that_name_comes_first(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_device_that_is_not_there_is_named(device: str, tmp_path: Path) -> None:
    arguments = parse("--model", str(tmp_path), "--device", device)
    with pytest.raises(CheckpointError, match=f"device is '{device}'"):
        load_model(arguments)


@pytest.mark.parametrize("command", ["chat", "evaluate replay"])
def test_a_model_that_cannot_be_loaded_is_one_line_and_status_1(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    arguments = {
        "chat": [str(EMBEDDED_RECORDING), "--ask", "0:What?"],
        "evaluate replay": [
            *("--bag", str(EMBEDDED_RECORDING), "--questions", str(EMBEDDED_RECORDING / "questions.jsonl")),
            *("--out", str(tmp_path / "out")),
        ],
    }[command]
    capsys.readouterr()
    assert cli.main([*command.split(), *arguments, "--model", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"fvs {command}: {tmp_path}/model.safetensors is empty: download it again\n"
