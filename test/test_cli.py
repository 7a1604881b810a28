from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

import fvs_ros
from fvs_ros import cli


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch):
    """Stands in for the parity module: records its calls and returns what the test sets."""
    module = types.ModuleType("fvs_ros.commands.parity")
    module.calls, module.status = [], 0

    def main(paths):
        module.calls.append(paths)
        if isinstance(module.status, BaseException):
            raise module.status
        return module.status

    module.main = main
    model = types.ModuleType("fvs_ros.model")
    model.parity = module
    monkeypatch.setitem(sys.modules, "fvs_ros.model", model)
    monkeypatch.setitem(sys.modules, "fvs_ros.commands.parity", module)
    return module


@pytest.mark.parametrize("status", [0, 1])
def test_parity_gets_the_files_in_order_and_its_status_is_returned(parity, tmp_path: Path, status) -> None:
    files = [tmp_path / "b.safetensors", tmp_path / "a.safetensors"]
    for file in files:
        file.touch()
    parity.status = status
    assert cli.main(["parity", *map(str, files)]) == status
    assert parity.calls == [files]


def test_ctrl_c_ends_without_a_traceback(parity, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.touch()
    parity.status = KeyboardInterrupt()
    assert cli.main(["parity", str(file)]) == 130


def test_a_missing_file_is_named_before_anything_is_loaded(
    parity, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["parity", str(tmp_path / "absent.safetensors")])
    assert exit_info.value.code == 2
    assert "absent.safetensors does not exist" in capsys.readouterr().err
    assert parity.calls == []


def test_a_folder_is_refused(parity, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["parity", str(tmp_path)])
    assert exit_info.value.code == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["parity"], ["unknown"]], ids=["none", "no file", "unknown"])
def test_incomplete_command_lines_print_the_usage(arguments, capsys: pytest.CaptureFixture[str]) -> None:
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
        "    print('heavy:', sorted({'torch', 'transformers', 'cv2', 'rclpy', 'numpy'} & set(sys.modules)))\n"
    )
    root = Path(fvs_ros.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert "heavy: []" in result.stdout
    for command in cli.COMMANDS:
        assert command.name in result.stdout
