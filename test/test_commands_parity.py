from pathlib import Path

import pytest

from fvs_ros import cli
from fvs_ros.model import parity

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.safetensors"))


def test_a_file_that_agrees_exits_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["parity", str(GOLDEN[-1])]) == 0
    output = capsys.readouterr().out
    assert "1 of 1 files agree" in output
    assert "DIFFERS" not in output


def test_a_quantity_that_is_off_fails_and_is_marked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "TOLERANCE", 0.0)
    assert cli.main(["parity", str(GOLDEN[-1])]) == 1
    output = capsys.readouterr().out
    assert "DIFFERS" in output
    assert "0 of 1 files agree" in output


def test_one_bad_file_fails_all_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noise.safetensors").write_bytes(b"not safetensors")
    assert cli.main(["parity", str(GOLDEN[-1]), str(tmp_path / "noise.safetensors")]) == 1
    output = capsys.readouterr().out
    assert "noise.safetensors: cannot be read" in output
    assert "1 of 2 files agree" in output
