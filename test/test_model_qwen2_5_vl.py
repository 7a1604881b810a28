"""Qwen2.5-VL under the memory against transformers' own video forward."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import SmallShape, model_of, qwen2_5_vl
from torch import Tensor
from torch.nn import functional
from transformers.vision_utils import get_vision_window_index
from video_streams import QUESTION, frames_of, stream

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.memory.timeline import timeline
from fvs_ros.model.families import backbone_of
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.preprocess import PixelConfig, normalise, patchify, resize_frames
from fvs_ros.model.prompt import PromptBuilder
from fvs_ros.model.qwen2_5_vl import window_order
from fvs_ros.model.reference import ReferenceDecoder

SHAPES = {
    "small": SmallShape(),
    "wide": SmallShape(
        width=96,
        layers=3,
        heads=6,
        key_heads=6,
        blocks=4,
        vision_width=96,
        tied=True,
        vision={"initializer_range": 0.1},
    ),
    "one window": SmallShape(blocks=2, vision={"window_size": 56, "fullatt_block_indexes": []}),
    "all": SmallShape(heads=2, key_heads=1, blocks=2, vision={"fullatt_block_indexes": [0, 1], "tokens_per_second": 4}),
}


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def suffix_logits(model: FlashVStream, network: Any, snapshot: MemorySnapshot) -> Tensor:
    """Logits [1 + L, V] at the memory's last token and each token of the question after it."""
    reference = ReferenceDecoder(backbone_of(network), model.memory_config, ())
    prompt = PromptBuilder(model.tokenizer).build(QUESTION)
    prefix = reference.prefix(snapshot, prompt.head)
    assert prefix is not None
    logits = reference.continue_prefix(prefix, prompt.suffix, prefix.next_position)
    reference.rewind(prefix)
    return torch.cat([prefix.logits[None], logits])


def video_forward(
    model: FlashVStream, network: Any, frames: Sequence[np.ndarray], grid: PatchGrid, fps: float, text_behind: bool
) -> Tensor:
    """What `suffix_logits` gives, by transformers' own video forward.

    With `text_behind` the text after the video is moved behind the video's largest position.
    """
    video, prompt = (
        [*frames, *frames[-1:]] if len(frames) % 2 else frames,
        PromptBuilder(model.tokenizer).build(QUESTION),
    )
    pixels = patchify(normalise(resize_frames(video, grid, torch.device("cpu")), PixelConfig()))
    steps, pads = pixels.shape[0], pixels.shape[0] * grid.dam_tokens
    ids = torch.tensor([[*prompt.head, *[network.config.video_token_id] * pads, *prompt.suffix]])
    inputs = {
        "video_grid_thw": torch.tensor([[steps, grid.height, grid.width]]),
        "second_per_grid_ts": torch.tensor([2 / fps]),
        "mm_token_type_ids": 2 * (ids == network.config.video_token_id).int(),
    }
    positions = None
    if text_behind:
        positions, _ = network.model.get_rope_index(ids, **inputs)
        after = len(prompt.head) + pads
        positions[:, :, after:] += positions[:, :, :after].max() + 1 - positions[0, 0, after]
    output = network(input_ids=ids, pixel_values_videos=pixels.flatten(0, 1), position_ids=positions, **inputs)
    return output.logits[0, -len(prompt.suffix) - 1 :]


KEPT = {
    "detail alone": FlashMemoryConfig(csm_slots=0, dam_slots=12),
    "all kinds": FlashMemoryConfig(csm_slots=12, dam_slots=12, window_slots=2),
    "window and few keyframes": FlashMemoryConfig(csm_slots=4, dam_slots=3, window_slots=8),
}


@pytest.mark.parametrize(
    ("shape", "memory"),
    [*itertools.product(["small"], KEPT), ("wide", "all kinds"), ("one window", "all kinds"), ("all", "all kinds")],
)
@pytest.mark.parametrize(("count", "fps"), [(4, 4.0), (9, 3.0), (2, 1.0), (1, 1.0)])
def test_a_stream_that_is_kept_gives_the_logits_of_transformers_video_forward(
    shape: str, memory: str, count: int, fps: float
) -> None:
    """While the video is no longer in positions than its frame is wide, everything is transformers' own."""
    network = qwen2_5_vl(SHAPES[shape])
    model = model_of(network, KEPT[memory])
    for height, width in ((112, 336), (392, 168)):
        frames, grid = frames_of(count, height, width), PatchGrid(height // 14, width // 14)
        found = suffix_logits(model, network, stream(model, frames, grid, fps))
        expected = video_forward(model, network, frames, grid, fps, text_behind=False)
        assert_close(found, expected)


@pytest.mark.parametrize(("count", "fps"), [(8, 1.0), (13, 2.0), (5, 0.5)])
def test_the_text_after_a_longer_video_stands_behind_it(count: int, fps: float) -> None:
    """The one difference by design: transformers 5 has it begin in the midst of the video's time."""
    network = qwen2_5_vl()
    model = model_of(network, KEPT["all kinds"])
    frames, grid = frames_of(count, 112, 168), PatchGrid(8, 12)
    found = suffix_logits(model, network, stream(model, frames, grid, fps))
    assert_close(found, video_forward(model, network, frames, grid, fps, text_behind=True))
    own = video_forward(model, network, frames, grid, fps, text_behind=False)
    assert_close(found[0], own[0])
    assert (found[1:] - own[1:]).abs().max() > 1e-2


def test_the_prefix_cache_gives_the_same_answer() -> None:
    network = qwen2_5_vl()
    model = model_of(network, FlashMemoryConfig(csm_slots=4, dam_slots=3, window_slots=2))
    snapshot = stream(model, frames_of(24, 112, 168), PatchGrid(8, 12), 1.0)
    memory = model.new_prefix_cache().allocate(snapshot)
    while not memory.prefill_chunk():
        pass
    answer = memory.start(QUESTION, 8)
    while not answer.done:
        memory.decode_step()
    assert answer.text == model.answer(snapshot, QUESTION, max_new_tokens=8)


def test_a_long_stream_is_its_slots_in_order_of_time() -> None:
    """Against a sequence of transformers' own merger, positions and language model, put together slot by slot."""
    network = qwen2_5_vl()
    model = model_of(network, FlashMemoryConfig(csm_slots=4, dam_slots=3, window_slots=2))
    snapshot = stream(model, frames_of(25, 112, 168), PatchGrid(8, 12), 1.0)
    prompt = PromptBuilder(model.tokenizer).build(QUESTION)
    slots = [
        *(("keyframe", one, (8, 12)) for one in snapshot.dam),
        *(("cluster", one, (4, 6)) for one in snapshot.csm),
        *(("window", one, (8, 12)) for one in snapshot.window),
    ]
    shown = timeline(snapshot)
    kinds = [slots[index][0] for index in shown.slots.tolist()]
    assert kinds.count("window") == 2
    assert kinds[-1] == "window"
    assert "cluster" in kinds
    text = network.get_input_embeddings()
    first = len(prompt.head)
    embeddings, positions = [text(torch.tensor(prompt.head))], [torch.arange(first).expand(3, -1)]
    for index in shown.slots.tolist():
        _, features, grid = slots[index]
        embeddings.append(network.model.visual.merger(features))
        place = network.model.get_vision_position_ids(first, torch.tensor([1, *grid]), 1, 2)
        place[0] += int(2 * shown.times_s[index] + 0.02)
        positions.append(place)
    behind = int(max(part.max() for part in positions)) + 1
    embeddings.append(text(torch.tensor(prompt.suffix)))
    positions.append(torch.arange(behind, behind + len(prompt.suffix)).expand(3, -1))
    hidden = network.model.language_model(
        inputs_embeds=torch.cat(embeddings)[None], position_ids=torch.cat(positions, dim=1)[:, None]
    ).last_hidden_state
    expected = network.lm_head(hidden)[0, -len(prompt.suffix) - 1 :]
    assert_close(suffix_logits(model, network, snapshot), expected)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("size", [(56, 56), (112, 168), (280, 168), (336, 504)], ids=str)
def test_features_of_both_pathways_are_those_of_transformers_in_merge_block_order(
    shape: SmallShape, size: tuple[int, int]
) -> None:
    vision = qwen2_5_vl(shape).model.visual
    frames = torch.randn(6, 3, *size, generator=torch.Generator().manual_seed(1))
    found = backbone_of(qwen2_5_vl(shape)).tower.encode(frames)
    for features, pixels in ((found.high, frames), (found.low, functional.avg_pool2d(frames, 2))):
        grid = torch.tensor([[3, pixels.shape[2] // 14, pixels.shape[3] // 14]])
        output = vision(patchify(pixels).flatten(0, 1), grid_thw=grid)
        windows, _ = get_vision_window_index(grid, 2, vision.window_size, 14)
        raster = output.last_hidden_state.reshape(windows.shape[0], 4, -1)[windows.argsort()].flatten(0, 1)
        assert_close(features.flatten(0, 1), raster)
        assert_close(vision.merger(features.flatten(0, 1)), output.pooler_output)


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (8, 4), (5, 7), (1, 9), (3, 2)])
def test_windows_hold_every_merge_block_once_and_only_neighbours(rows: int, columns: int) -> None:
    order, windows = window_order(rows, columns, 4)
    assert sorted(order.tolist()) == list(range(rows * columns))
    sizes = list(itertools.chain.from_iterable([one.patches // 4] * one.count for one in windows))
    assert sum(sizes) == rows * columns
    for part in order.split(sizes):
        assert len({(index // columns // 4, index % columns // 4) for index in part.tolist()}) == 1


def test_steps_do_not_see_each_other() -> None:
    tower = backbone_of(qwen2_5_vl()).tower
    frames = torch.randn(4, 3, 112, 168, generator=torch.Generator().manual_seed(2))
    together, alone = tower.encode(frames), tower.encode(frames[2:])
    assert_close(together.high[1], alone.high[0])
    assert_close(together.low[1], alone.low[0])
