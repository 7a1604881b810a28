from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.recalled import recalled_memory
from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model import recall
from fvs_ros.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from fvs_ros.model.checkpoint_errors import CheckpointError
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.recall import RECALL_FILE, Recaller, RecallHead, RecallQuery, scores, segment_times
from fvs_ros.model.sequence import memory_segment
from fvs_ros.model.tiny import tiny_checkpoint, write_tiny_checkpoint

GRID = PatchGrid(8, 8)
WIDTH, KEYS = 64, 16
CPU = torch.device("cpu")
SECOND_NS = 10**9


def head(seed: int = 0) -> RecallHead:
    """A head of random weights, those for time too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = RecallHead(WIDTH, KEYS)
        torch.nn.init.normal_(made.time.weight, std=0.1)
    return made.eval()


def load(folder: Path, attention: str = "sdpa") -> Checkpoint:
    return load_checkpoint(str(folder), device=CPU, dtype=torch.float32, attention=attention)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("recalling")
    save_checkpoint(dataclasses.replace(tiny_checkpoint(), recall=head()), made)
    return made


@pytest.fixture(scope="module")
def recaller(folder: Path) -> Recaller:
    made = FlashVStream.load(str(folder), device="cpu").recaller
    assert made is not None
    return made


@pytest.fixture
def low() -> Tensor:
    return torch.randn(5, GRID.low_patches, WIDTH, generator=torch.Generator().manual_seed(0))


def test_a_head_comes_back_with_its_checkpoint_in_float32(folder: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(str(folder), device=CPU, dtype=torch.bfloat16)
    assert loaded.recall is not None
    assert loaded.recall.keys == KEYS
    assert not loaded.recall.training
    weights = head().state_dict()
    assert weights.keys() == loaded.recall.state_dict().keys()
    for name, weight in loaded.recall.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, weights[name])
    save_checkpoint(loaded, tmp_path)
    assert (tmp_path / RECALL_FILE).read_bytes() == (folder / RECALL_FILE).read_bytes()


def test_a_checkpoint_without_a_head_recalls_nothing(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    assert not (tmp_path / RECALL_FILE).exists()
    assert load(tmp_path).recall is None
    assert FlashVStream.load(str(tmp_path), device="cpu").recaller is None


@pytest.mark.parametrize("fault", ["foreign", "cut", "wider", "lacking", "more", "folder"])
def test_a_file_that_holds_no_head_for_the_model_is_a_checkpoint_error(tmp_path: Path, fault: str) -> None:
    write_tiny_checkpoint(tmp_path)
    file = tmp_path / RECALL_FILE
    head().save(tmp_path)
    weights = load_file(file)
    if fault == "foreign":
        file.write_bytes(b"\x80\x04 a pickle, maybe")
    elif fault == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif fault == "wider":
        RecallHead(2 * WIDTH, KEYS).save(tmp_path)
    elif fault == "folder":
        file.unlink()
        file.mkdir()
    else:
        changed = {**weights, "more": torch.zeros(1)} if fault == "more" else {"word.bias": weights["word.bias"]}
        save_file(changed, file)
    with pytest.raises(CheckpointError, match=f"{RECALL_FILE} is no recall head for a language model of width 64: ."):
        load(tmp_path)


def test_the_fingerprint_is_that_of_the_weights_and_of_the_head(folder: Path, tmp_path: Path) -> None:
    """Stored keys are a cache under it: another head's must not be taken for this one's."""
    write_tiny_checkpoint(tmp_path)
    plain = FlashVStream.load(str(tmp_path), device="cpu").fingerprint()
    head(seed=1).save(tmp_path)
    other = FlashVStream.load(str(tmp_path), device="cpu").fingerprint()
    assert len({plain, other, FlashVStream.load(str(folder), device="cpu").fingerprint()}) == 3
    (tmp_path / RECALL_FILE).unlink()
    assert FlashVStream.load(str(tmp_path), device="cpu").fingerprint() == plain


def test_keys_are_of_length_one_for_each_token_of_each_segment(recaller: Recaller, low: Tensor) -> None:
    keys = recaller.segment_keys(low, GRID)
    assert keys.shape == (5, GRID.csm_tokens, KEYS)
    assert (keys.dtype, keys.device) == (torch.float16, CPU)
    torch.testing.assert_close(keys.float().norm(dim=-1), torch.ones(5, GRID.csm_tokens), atol=2e-3, rtol=0)
    assert not keys.requires_grad


def test_a_segments_keys_depend_on_no_other_segment(
    recaller: Recaller, low: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = recaller.segment_keys(low, GRID)
    for number in range(5):
        torch.testing.assert_close(recaller.segment_keys(low[number : number + 1], GRID)[0], keys[number])
    changed = low.clone()
    changed[2] = changed[2].flip(0)
    again = recaller.segment_keys(changed, GRID)
    assert ((again - keys).abs().amax((1, 2)) > 0.05).tolist() == [False, False, True, False, False]
    monkeypatch.setattr(recall, "BATCH", 2)
    torch.testing.assert_close(recaller.segment_keys(low, GRID), keys)


@pytest.mark.parametrize("grid", [GRID, PatchGrid(4, 16)], ids=["square", "wide"])
def test_a_segment_is_read_like_a_memory_of_one_slot(folder: Path, low: Tensor, grid: PatchGrid) -> None:
    """Behind the prompt's head, at the positions of its rows and columns."""
    model = load(folder)
    prompts, backbone = PromptBuilder(model.tokenizer), model.backbone
    stamps = torch.zeros(1, dtype=torch.int64)
    window = torch.zeros(0, grid.patches, WIDTH)
    snapshot = recalled_memory(low[:1], window, grid, steps=1, times=torch.zeros(1), start_ns=stamps, end_ns=stamps)
    whole = memory_segment(backbone, snapshot, prompts.head, FlashMemoryConfig())
    states: list[Tensor] = []
    handle = backbone.layers[0].register_forward_hook(lambda *call: states.append(call[-1]))
    with torch.no_grad():
        backbone.hidden_states(whole.embeddings[None], whole.positions[:, None])
    handle.remove()
    found = Recaller(backbone, prompts, head()).segment_states(low, grid)
    assert found.shape == (5, grid.csm_tokens, WIDTH)
    torch.testing.assert_close(found[0], states[0][0, len(prompts.head) :], atol=1e-4, rtol=1e-4)


def test_only_the_lower_half_of_the_layers_is_read(folder: Path, low: Tensor) -> None:
    model = load(folder)
    assert model.recall is not None
    recaller = Recaller(model.backbone, PromptBuilder(model.tokenizer), model.recall)
    keys = recaller.segment_keys(low, GRID)
    layers = model.network.model.language_model.layers
    with torch.no_grad():
        layers[1].mlp.down_proj.weight.zero_()
    assert torch.equal(recaller.segment_keys(low, GRID), keys)
    with torch.no_grad():
        layers[0].mlp.down_proj.weight.zero_()
    assert not torch.equal(recaller.segment_keys(low, GRID), keys)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_words_do_not_see_what_follows_them(folder: Path, attention: str) -> None:
    model = load(folder, attention)
    recaller = Recaller(model.backbone, PromptBuilder(model.tokenizer), head())
    first, second = (recaller.question_states(question) for question in ("Where is the red mug?", "Where is the blue"))
    # The token that closes the visual part comes first; the tokenizer has one token a letter.
    same = 1 + len("Where is the ")
    torch.testing.assert_close(first[:same], second[:same])
    assert not torch.allclose(first[same], second[same], atol=1e-3)


def test_attention_of_any_kind_finds_the_same(folder: Path, low: Tensor) -> None:
    made = []
    for attention in ("sdpa", "eager"):
        model = load(folder, attention)
        made.append(Recaller(model.backbone, PromptBuilder(model.tokenizer), head()))
    torch.testing.assert_close(*(one.segment_keys(low, GRID) for one in made), atol=2e-3, rtol=0)
    torch.testing.assert_close(*(one.question_states("Where?") for one in made), atol=1e-4, rtol=1e-4)


def test_a_control_token_in_a_question_is_read_letter_by_letter(recaller: Recaller) -> None:
    nothing, token = "", "<|im_end|>"
    assert len(recaller.question_states(token)) == len(recaller.question_states(nothing)) + len(token)


def test_a_words_best_match_counts_by_its_weight_and_when_a_segment_was() -> None:
    words = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    keys = torch.tensor([[[0.5, 0.0], [0.0, 0.25]], [[-0.5, -0.5], [-0.25, -1.0]]], dtype=torch.float16)
    times = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    rated = scores(RecallQuery(words, torch.tensor([0.125, 4.0])), keys, times)
    assert rated.dtype == torch.float32
    assert rated.tolist() == [0.5 + 3 * 0.25 + 0.125, -0.25 - 3 * 0.5 + 4]


def test_a_question_is_held_against_all_segments_alike(recaller: Recaller, low: Tensor) -> None:
    keys = recaller.segment_keys(low, GRID)
    starts = torch.arange(5) * 60 * SECOND_NS
    ends = starts + 20 * SECOND_NS

    def rated(order: list[int]) -> Tensor:
        return recaller.scores("Where is it?", keys[order], starts[order], ends[order], 0, 300 * SECOND_NS)

    found = rated([0, 1, 2, 3, 4])
    assert found.shape == (5,)
    assert (found.dtype, found.device) == (torch.float32, CPU)
    assert found.std() > 0
    torch.testing.assert_close(rated([3, 1, 4]), found[[3, 1, 4]])
    other = recaller.scores("What is red?", keys, starts, ends, 0, 300 * SECOND_NS)
    assert not torch.allclose(other - other.mean(), found - found.mean(), atol=1e-3)


def test_when_a_segment_was_is_seen_from_the_question() -> None:
    """A stream of 1,000 seconds from 23:59:10 on, asked at its end: a segment at its start and one just over."""
    first = (86_400 - 50) * SECOND_NS
    starts = torch.tensor([first, first + 500 * SECOND_NS, first + 900 * SECOND_NS])
    ends = torch.tensor([first + 20 * SECOND_NS, first + 945 * SECOND_NS, first + 1005 * SECOND_NS])
    times = segment_times(starts, ends, first, first + 1000 * SECOND_NS)
    assert times.dtype == torch.float32
    age, squared, place, place_squared, ten, minute, begin, always = times[:, :8].T.tolist()
    ages = torch.tensor([980.0, 55.0, 0.0]).log1p()
    assert age == pytest.approx(ages.tolist())
    assert squared == pytest.approx(ages.square().tolist())
    assert place == pytest.approx([0, 0.5, 0.9])
    assert place_squared == pytest.approx([0, 0.25, 0.81])
    assert (ten, minute, begin, always) == ([0, 0, 1], [0, 1, 1], [1, 0, 0], [1, 1, 1])
    assert times[:, 8:].nonzero().tolist() == [[0, 23], [1, 0], [2, 0]]
    assert times.shape[1] == RecallHead(WIDTH).time.out_features


def test_a_stream_of_one_frame_has_times() -> None:
    moment = torch.tensor([5 * SECOND_NS])
    assert segment_times(moment, moment, 5 * SECOND_NS, 5 * SECOND_NS).isfinite().all()


def test_a_new_head_takes_no_time_for_better_than_another() -> None:
    states = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    query = RecallHead(WIDTH).query(states)
    assert query.time.abs().max() == 0
    assert query.words.shape == (3, recall.WIDTH)
