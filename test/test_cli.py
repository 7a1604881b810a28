from __future__ import annotations

import argparse
import subprocess
import sys
import types
from pathlib import Path

import pytest

import fvs_ros
from fvs_ros import cli
from fvs_ros.evaluation.questions import QUESTIONS_FILE
from fvs_ros.model.names import EMBEDDED_RECORDING


class FakeParity(types.ModuleType):
    """Stands in for the module of `fvs parity`: records its calls, and returns or raises what the test sets."""

    def __init__(self) -> None:
        super().__init__("fvs_ros.commands.parity")
        self.calls: list[list[Path]] = []
        self.outcome: int | BaseException = 0

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path)

    def run(self, arguments: argparse.Namespace) -> int:
        self.calls.append(arguments.files)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> FakeParity:
    module = FakeParity()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("status", [0, 1])
def test_a_command_gets_its_arguments_and_its_status_is_returned(parity: FakeParity, status: int) -> None:
    parity.outcome = status
    assert cli.main(["parity", "b.safetensors", "a.safetensors"]) == status
    assert parity.calls == [[Path("b.safetensors"), Path("a.safetensors")]]


def test_ctrl_c_ends_without_a_traceback(parity: FakeParity) -> None:
    parity.outcome = KeyboardInterrupt()
    assert cli.main(["parity", "a.safetensors"]) == 130


@pytest.mark.parametrize("arguments", [["evaluate", "score"], ["patrol", "make"]], ids=" ".join)
def test_nested_commands_are_those_of_their_modules(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*arguments, "--help"])
    assert exit_info.value.code == 0
    assert f"usage: fvs {' '.join(arguments)}" in capsys.readouterr().out


def test_the_live_evaluation_names_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fvs_ros.ros_tools.live_replay", None)
    bag, questions = str(EMBEDDED_RECORDING), str(EMBEDDED_RECORDING / QUESTIONS_FILE)
    command = ["evaluate", "replay", "--live", "--bag", bag, "--questions", questions, "--out", "out"]
    assert cli.main(command) == 1
    assert "--live needs ROS 2 and the built interfaces" in capsys.readouterr().err


def test_every_module_of_a_command_is_in_the_table() -> None:
    commands = [one for entry in cli.COMMANDS for one in (entry.commands if isinstance(entry, cli.Group) else [entry])]
    folder = Path(fvs_ros.__file__).parent / "commands"
    with_run = {path.stem for path in folder.glob("*.py") if "\ndef run(" in path.read_text(encoding="utf-8")}
    assert {command.module for command in commands} == with_run


@pytest.mark.parametrize(
    "arguments", [[], ["parity"], ["evaluate"], ["unknown"]], ids=["none", "no file", "no subcommand", "unknown"]
)
def test_incomplete_command_lines_print_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    assert exit_info.value.code == 2
    assert "usage: fvs" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"fvs_ros {fvs_ros.__version__}\n"


def test_help_names_every_command_and_loads_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from fvs_ros.cli import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    print('heavy:', sorted({'torch', 'transformers', 'cv2', 'rclpy', 'numpy', 'rich'} & set(sys.modules)))\n"
    )
    root = Path(fvs_ros.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert "heavy: []" in result.stdout
    for command in cli.COMMANDS:
        assert command.name in result.stdout
