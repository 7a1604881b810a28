import sys
from pathlib import Path

import pytest
from training_videos import draw_frames, entry, write_recipe

from fvs_ros import cli


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    draw_frames(tmp_path / "video", ("red",))
    return write_recipe(tmp_path, [entry("video", ("which?", "red"))], steps=2)


def test_a_recipe_is_run_and_its_result_named(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(recipe), "--set", "seed=3"]) == 0
    assert "the checkpoint is in" in capsys.readouterr().out
    assert (tmp_path / "run/final/model.safetensors").exists()


def test_a_finished_run_is_left_as_it_is(recipe: Path, tmp_path: Path) -> None:
    assert cli.main(["train", str(recipe)]) == 0
    written = (tmp_path / "run/final/model.safetensors").stat().st_mtime_ns
    assert cli.main(["train", str(recipe)]) == 0
    assert (tmp_path / "run/final/model.safetensors").stat().st_mtime_ns == written


def test_a_dry_run_writes_nothing(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(recipe), "--dry-run"]) == 0
    assert "parameters are trained" in capsys.readouterr().out.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_out_of_time_says_so(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", str(recipe), "--minutes", "0.0001"]) == 0
    assert "the same command resumes from here" in capsys.readouterr().out
    assert not (tmp_path / "run/final").exists()


def test_what_cannot_be_used_is_named_without_a_traceback(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", str(recipe), "--set", "sede=3"]) == 1
    assert "fvs train: " in (message := capsys.readouterr().err)
    assert "unknown key 'sede'" in message
    assert cli.main(["train", str(recipe), "--set", "model={checkpoint: " + str(tmp_path / "absent") + "}"]) == 1
    assert "absent" in capsys.readouterr().err


def test_without_tensorboard_the_extra_is_named(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert cli.main(["train", str(recipe)]) == 1
    assert "pip install 'fvs_ros[train]'" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["0", "-1", "soon", "nan"])
def test_minutes_that_are_none_are_refused(recipe: Path, minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", str(recipe), "--minutes", minutes])
    assert f"{minutes} is not a number above 0" in capsys.readouterr().err
