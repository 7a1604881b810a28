from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fvs_ros.model.parity import GoldenError, compare, read_golden

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.safetensors"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_quantity_agrees_with_the_published_code(path: Path) -> None:
    comparisons = compare(read_golden(path))
    assert len(comparisons) == 11
    assert [item for item in comparisons if not item.agrees] == []


def rewrite(source: Path, target: Path, **changes: Callable[[Tensor], Tensor | None]) -> Path:
    with safe_open(source, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    changed = {**tensors, **{name: change(tensors[name]) for name, change in changes.items()}}
    save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, target, metadata=metadata)
    return target


@pytest.mark.parametrize(
    ("quantity", "change"),
    [
        ("csm", lambda tensor: tensor + 2e-4),
        ("dam_steps", lambda tensor: tensor.flip(0)),
        ("position_ids", lambda tensor: tensor + 1),
        ("logits_last", lambda tensor: tensor * float("nan")),
        ("generated", lambda tensor: tensor.roll(1)),
        ("memory_features", lambda tensor: tensor[1:]),
    ],
)
def test_a_quantity_that_is_off_fails_the_file(
    tmp_path: Path, quantity: str, change: Callable[[Tensor], Tensor]
) -> None:
    path = rewrite(GOLDEN[-1], tmp_path / "off.safetensors", **{quantity: change})
    assert [item.quantity for item in compare(read_golden(path)) if not item.agrees] == [quantity]


def test_files_that_lack_something_are_refused(tmp_path: Path) -> None:
    path = rewrite(GOLDEN[-1], tmp_path / "half.safetensors", frames=lambda tensor: None)
    with pytest.raises(GoldenError, match="no frames"):
        read_golden(path)
    save_file({"frames": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(GoldenError, match="config"):
        read_golden(tmp_path / "bare.safetensors")


def test_a_file_of_memory_quantities_alone_needs_no_prompt(tmp_path: Path) -> None:
    of_prompt = ("input_ids", "position_ids", "logits_memory_end", "logits_last", "generated")
    path = rewrite(GOLDEN[-1], tmp_path / "memory.safetensors", **dict.fromkeys(of_prompt, lambda tensor: None))
    comparisons = compare(read_golden(path))
    assert len(comparisons) == 7
    assert all(item.agrees for item in comparisons)
    path = rewrite(GOLDEN[-1], tmp_path / "half.safetensors", input_ids=lambda tensor: None)
    with pytest.raises(GoldenError, match="no input_ids"):
        read_golden(path)


def test_unknown_quantities_are_not_passed_over(tmp_path: Path) -> None:
    path = rewrite(GOLDEN[-1], tmp_path / "more.safetensors", generated=lambda tensor: tensor)
    golden = read_golden(path)
    golden.tensors["mood"] = torch.zeros(1)
    with pytest.raises(GoldenError, match="mood"):
        compare(golden)
