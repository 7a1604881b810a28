from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from patrol_drawing import drawing
from safetensors.torch import load_file
from torch import Tensor
from training_videos import TINY

from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.checkpoint import Checkpoint, save_checkpoint
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.recall import RECALL_FILE, Recaller, RecallHead
from fvs_ros.patrol.config import FRAME_SIZE
from fvs_ros.patrol.render import shared_renderer
from fvs_ros.training.config import CacheConfig, ScratchConfig
from fvs_ros.training.data.cache import TensorCache
from fvs_ros.training.data.dataset import Sample
from fvs_ros.training.data.episodes import TrainingEpisode
from fvs_ros.training.errors import TrainingError
from fvs_ros.training.model import EpisodeModel
from fvs_ros.training.objectives.segment_recall import SegmentQuestion, SegmentQuestions, segment_recall_loss
from fvs_ros.training.recipe import load_recipe
from fvs_ros.training.run import dry_run, last_checkpoint, train
from fvs_ros.training.scratch import new_checkpoint

GRID = PatchGrid(8, 8)
SECOND_NS = 10**9
SEGMENTS = 6
SCRATCH = {**TINY, "vocabulary": "patrol", "tied_embeddings": True, "frame_pixels": FRAME_SIZE**2}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    made = new_checkpoint(ScratchConfig(**TINY), seed=0)
    made.network.requires_grad_(False)
    return made


@pytest.fixture
def recaller(checkpoint: Checkpoint) -> Recaller:
    torch.manual_seed(0)
    return Recaller(checkpoint.backbone, PromptBuilder(checkpoint.tokenizer), RecallHead(64, keys=8))


@pytest.fixture
def low() -> Tensor:
    return torch.randn(SEGMENTS, GRID.low_patches, 64, generator=torch.Generator().manual_seed(0))


def question(text: str, proof: tuple[int, ...], segments: int = SEGMENTS, family: str = "recall") -> SegmentQuestion:
    return SegmentQuestion(text, family, segments, segments * 60 * SECOND_NS, proof)


def asked(*questions: SegmentQuestion) -> SegmentQuestions:
    """Of a stream whose segments are 50 seconds of every minute."""
    starts = [number * 60 * SECOND_NS for number in range(SEGMENTS)]
    return SegmentQuestions(tuple(starts), tuple(one + 50 * SECOND_NS for one in starts), questions)


def rated(recaller: Recaller, low: Tensor, one: SegmentQuestion) -> Tensor:
    """The scores of the segments until a question, as an engine computes them."""
    times = asked()
    return recaller.scores(
        one.text,
        recaller.segment_keys(low, GRID)[: one.segments],
        torch.tensor(times.start_ns[: one.segments]),
        torch.tensor(times.end_ns[: one.segments]),
        0,
        one.now_ns,
    )


def test_the_loss_is_that_of_the_scores_that_an_engine_computes(recaller: Recaller, low: Tensor) -> None:
    """Over the segments that there have been until each question; right if the best is one of the proof."""
    early, late = question("where?", (1,), segments=3, family="now"), question("and what?", (0, 4))
    best = int(rated(recaller, low, late).argmax())
    sure = question("and what?", (best,))
    loss = segment_recall_loss(recaller, [(low, GRID, asked(early, late)), (low, GRID, asked(sure))])
    expected = [-rated(recaller, low, one).log_softmax(0)[list(one.proof)].mean().item() for one in (early, late, sure)]
    assert loss.loss.item() == pytest.approx(sum(expected) / 3, rel=1e-2)
    assert len(set(expected)) == 3
    right = [int(rated(recaller, low, one).argmax()) in one.proof for one in (early, late, sure)]
    assert loss.right.tolist() == right
    assert right[2]
    assert loss.families == ("now", "recall", "recall")
    assert (loss.tokens, loss.shares) == (0, {})


def test_only_the_head_gets_gradients(checkpoint: Checkpoint, recaller: Recaller, low: Tensor) -> None:
    checkpoint.network.requires_grad_(True)
    segment_recall_loss(recaller, [(low, GRID, asked(question("where?", (1,))))]).loss.backward()
    assert all(weight.grad is None for weight in checkpoint.network.parameters())
    checkpoint.network.requires_grad_(False)
    for name, weight in recaller.head.named_parameters():
        assert weight.grad is not None, name


def test_it_learns_which_segment_a_word_is_about(recaller: Recaller, low: Tensor) -> None:
    data = [(low, GRID, asked(question("a", (1,)), question("b", (4,)), question("c", (2,))))]
    optimiser = torch.optim.Adam(recaller.head.parameters(), lr=0.02)
    first = segment_recall_loss(recaller, data)
    for _ in range(40):
        loss = segment_recall_loss(recaller, data)
        optimiser.zero_grad()
        loss.loss.backward()
        optimiser.step()
    assert loss.loss.item() < 0.5 * first.loss.item()
    assert segment_recall_loss(recaller, data).right.tolist() == [True] * 3


def test_patrols_without_a_question_that_segments_prove_are_refused(recaller: Recaller, low: Tensor) -> None:
    with pytest.raises(TrainingError, match="no question that some segments prove; raise questions"):
        segment_recall_loss(recaller, [(low, GRID, asked())])
    (family,) = segment_recall_loss(recaller, [(low, GRID, asked()), (low, GRID, asked(question("a", (1,))))]).families
    assert family == "recall"


def test_only_patrols_have_segments_to_recall(low: Tensor) -> None:
    made = dataclasses.replace(new_checkpoint(ScratchConfig(**TINY), seed=0), recall=RecallHead(64))
    model = EpisodeModel(
        made, tower_trained=False, max_tokens=4000, cache=TensorCache(CacheConfig()), objective="recall"
    )
    silent = Sample(TrainingEpisode("drawn", "drawn", None, ()), GRID, None, frames=torch.zeros(2, 3, 112, 112))
    with pytest.raises(TrainingError, match="drawn has no segments to recall; only patrols have"):
        model([silent])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Short patrols, each step of which shows another view, for a checkpoint that knows nothing."""
    with drawing():
        shared_renderer(FRAME_SIZE)
    save_checkpoint(new_checkpoint(ScratchConfig(**SCRATCH), seed=0), tmp_path / "start")
    patrol = {"episodes": 2, "lengths": [12], "rooms": 2, "views": 1, "drive": False, "dwell_s": [2, 2], "moments": 2}
    values: dict[str, Any] = {
        "output": str(tmp_path / "run"),
        "model": {"checkpoint": str(tmp_path / "start")},
        "optimiser": {"learning_rate": 1e-2},
        "workers": 0,
        "log_steps": 1,
        "stages": [{"name": "recalling", "patrol": patrol, "steps": 3, "objective": "recall", "clock_code": 0.1}],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "recipe.yaml"


def test_a_stage_leaves_a_checkpoint_that_recalls_and_is_else_as_before(recipe: Path, tmp_path: Path) -> None:
    """In one go, and in pieces whose data processes encode."""
    assert train(load_recipe(recipe), lambda line: None)
    weights = [load_file(tmp_path / folder / "model.safetensors") for folder in ("start", "run/final")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    newest = last_checkpoint(tmp_path / "run/recalling")
    assert newest is not None
    history = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    assert [row["step"] for row in history if "loss" in row] == [1, 2, 3]
    assert all(0 <= row["accuracy"] <= 1 for row in history if "loss" in row)
    model = FlashVStream.load(str(tmp_path / "run/final"), device="cpu")
    assert model.recaller is not None
    assert model.memory_config.clock_code == 0.1
    assert FlashVStream.load(str(tmp_path / "start"), device="cpu").fingerprint() != model.fingerprint()

    pieces = load_recipe(recipe, [f"output={tmp_path / 'pieces'}", "encode_in_workers=true"])
    assert [train(pieces, lambda line: None, minutes=1e-9) for _ in range(3)] == [False, False, True]
    whole, again = (load_file(tmp_path / folder / "final" / RECALL_FILE) for folder in ("run", "pieces"))
    assert whole.keys() == again.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(weight, again[name], atol=1e-4, rtol=1e-3, msg=name)
    head = RecallHead(TINY["text_width"])
    assert (whole["scale"] != head.scale).all()


def test_a_dry_run_says_that_only_the_head_is_trained(recipe: Path) -> None:
    lines: list[str] = []
    dry_run(load_recipe(recipe), lines.append)
    weights = list(RecallHead(TINY["text_width"]).parameters())
    assert f"{sum(weight.numel() for weight in weights):,} of " in lines[0]
    assert f"are trained, in {len(weights)} tensors" in lines[0]
