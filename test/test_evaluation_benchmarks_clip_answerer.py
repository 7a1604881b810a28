"""Whole clips: which frames are taken, what memory is made of them, and what the answer begins with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import benchmark_data
import numpy as np
import pytest
import torch
from fakes import FakeModel

from fvs_ros.evaluation.benchmarks import BENCHMARKS, Media
from fvs_ros.evaluation.benchmarks.clip_answerer import ClipAnswerer, ClipProtocol
from fvs_ros.evaluation.benchmarks.windows import windows
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid, StepFeatures


class Prefixed(FakeModel):
    """Answers with the prefix that it was given."""

    def answer(
        self,
        snapshot: MemorySnapshot,
        question: str,
        *,
        max_new_tokens: int,
        on_token: Callable[[str], None],
        answer_prefix: str,
    ) -> str:
        return f"{answer_prefix} after {question[:6]}"


def media(tmp_path: Path, count: int) -> Media:
    folder = benchmark_data.write_frames(tmp_path / f"frames{count}", count)
    return Media(frames=tuple(sorted(folder.iterdir())), times_s=tuple(map(float, range(count))))


@pytest.mark.parametrize(("count", "most", "taken"), [(5, 240, [0, 1, 2, 3, 4, 4]), (21, 6, [0, 4, 8, 12, 16, 20])])
def test_frames_are_sampled_and_paired_as_published(tmp_path: Path, count: int, most: int, taken: list[int]) -> None:
    model = Prefixed()
    frames = media(tmp_path, count)
    memory = ClipAnswerer(model, ClipProtocol(max_frames=most), batch_steps=2).memory(frames, "clip")
    assert [value for call in model.encoded for value in call] == [10 + 40 * index % 240 for index in taken]
    assert max(map(len, model.encoded)) == 4, "two grid steps at once"
    assert memory.steps == len(taken) // 2


@pytest.mark.parametrize(("resizes", "size"), [(2, (280, 392)), (1, (48, 64))])
def test_frames_reach_the_model_after_the_first_published_resize(
    resizes: int, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Prefixed()
    sizes: list[tuple[int, ...]] = []
    encode = model.encode_steps

    def noted(frames: Sequence[np.ndarray], grid: PatchGrid) -> StepFeatures:
        sizes.extend(frame.shape[:2] for frame in frames)
        return encode(frames, grid)

    monkeypatch.setattr(model, "encode_steps", noted)
    ClipAnswerer(model, ClipProtocol(resizes=resizes)).memory(media(tmp_path, 2), "clip")
    assert sizes == [size, size]


def test_the_memory_is_the_published_one_and_repeats(tmp_path: Path) -> None:
    frames = media(tmp_path, 40)
    model = Prefixed(csm_slots=6, dam_slots=3)
    answerer = ClipAnswerer(model, ClipProtocol())
    first = answerer.memory(frames, "clip")
    torch.rand(3)
    again = answerer.memory(frames, "clip")
    assert (first.csm.shape[0], first.dam.shape[0]) == (6, 3)
    assert torch.equal(first.csm, again.csm)
    assert torch.equal(first.dam_steps, again.dam_steps)


def test_the_answer_begins_as_published_and_is_told_without_it(tmp_path: Path) -> None:
    from benchmark_files import SAMPLES

    (window, *_) = windows(BENCHMARKS["mlvu"].read(SAMPLES / "mlvu.json"))
    rows = list(ClipAnswerer(Prefixed(), ClipProtocol()).answers(window, media(tmp_path, 2), window.questions))
    assert [row.response for row in rows] == ["Best option: ( after Select"] * 2
    assert [row.id for row in rows] == ["000000", "000001"]


def test_an_odd_number_of_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="max_frames is 5"):
        ClipProtocol(max_frames=5)
