"""Qwen3-VL under the memory against transformers' own video forward."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import SmallShape, model_of, qwen3_vl
from torch import Tensor
from torch.nn import functional
from transformers import Qwen3VLProcessor
from video_streams import QUESTION, frames_of, stream

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import MemorySnapshot, PatchGrid
from fvs_ros.memory.timeline import timeline
from fvs_ros.memory.timestamps import step_times_s
from fvs_ros.model.families import backbone_of
from fvs_ros.model.flash_vstream import FlashVStream
from fvs_ros.model.preprocess import QWEN3_VL_PIXELS, normalise, patchify, resize_frames
from fvs_ros.model.prompt import TIMESTAMPED_STYLE, PromptBuilder
from fvs_ros.model.qwen3_vl import Qwen3VLTower
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
        vision={"deepstack_visual_indexes": [1, 3, 2], "num_position_embeddings": 2304, "initializer_range": 0.1},
    ),
    "one key head": SmallShape(heads=2, key_heads=1, blocks=2, vision={"deepstack_visual_indexes": [1]}),
    "no deepstack": SmallShape(vision={"deepstack_visual_indexes": []}),
}


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def prompts_of(model: FlashVStream) -> PromptBuilder:
    return PromptBuilder(model.tokenizer, TIMESTAMPED_STYLE)


def suffix_logits(model: FlashVStream, network: Any, snapshot: MemorySnapshot) -> Tensor:
    """Logits [1 + L, V] at the memory's last token and each token of the question after it."""
    prompts = prompts_of(model)
    reference = ReferenceDecoder(backbone_of(network), model.memory_config, (), prompts.words)
    prompt = prompts.build(QUESTION)
    prefix = reference.prefix(snapshot, prompt.head)
    assert prefix is not None
    logits = reference.continue_prefix(prefix, prompt.suffix, prefix.next_position)
    reference.rewind(prefix)
    return torch.cat([prefix.logits[None], logits])


def video_text(model: FlashVStream, count: int, grid: PatchGrid, fps: float) -> str:
    """What transformers' processor writes in the place of `<|vision_start|><|video_pad|><|vision_end|>`.

    Its class cannot be made where torchvision is not installed.
    """
    processor: Any = Qwen3VLProcessor.__new__(Qwen3VLProcessor)
    processor.vision_start_token, processor.vision_end_token = "<|vision_start|>", "<|vision_end|>"
    processor.video_token = "<|video_pad|>"
    processor.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    metadata = SimpleNamespace(fps=fps, frames_indices=list(range(count)))
    grids = torch.tensor([[-(-count // 2), grid.height, grid.width]])
    text: str = processor.replace_video_token({"video_grid_thw": grids, "video_metadata": [metadata]}, 0)
    return text


def video_forward(
    model: FlashVStream, network: Any, frames: Sequence[np.ndarray], grid: PatchGrid, fps: float
) -> Tensor:
    """What `suffix_logits` gives, by transformers' own processor's text and video forward."""
    after = f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    text = f"<|im_start|>user\n{video_text(model, len(frames), grid, fps)}{after}"
    ids = torch.tensor([model.tokenizer.encode(text)])
    video = [*frames, *frames[-1:]] if len(frames) % 2 else frames
    pixels = patchify(normalise(resize_frames(video, grid, torch.device("cpu")), QWEN3_VL_PIXELS), 16)
    output = network(
        input_ids=ids,
        pixel_values_videos=pixels.flatten(0, 1),
        video_grid_thw=torch.tensor([[pixels.shape[0], grid.height, grid.width]]),
        mm_token_type_ids=2 * (ids == network.config.video_token_id).int(),
    )
    return output.logits[0, -len(model.tokenizer.encode(after)) - 1 :]


KEPT = {
    "detail alone": FlashMemoryConfig(csm_slots=0, dam_slots=12),
    "all kinds": FlashMemoryConfig(csm_slots=12, dam_slots=12, window_slots=2),
    "window and few keyframes": FlashMemoryConfig(csm_slots=4, dam_slots=3, window_slots=8),
}


@pytest.mark.parametrize(
    ("shape", "memory"),
    [*itertools.product(["small"], KEPT), *itertools.product(["wide", "one key head", "no deepstack"], ["all kinds"])],
)
@pytest.mark.parametrize(("count", "fps"), [(4, 4.0), (9, 3.0), (8, 1.0), (1, 1.0)])
def test_a_stream_that_is_kept_gives_the_logits_of_transformers_video_forward(
    shape: str, memory: str, count: int, fps: float
) -> None:
    network = qwen3_vl(SHAPES[shape])
    model = model_of(network, KEPT[memory], QWEN3_VL_PIXELS)
    for height, width in ((128, 320), (192, 64)):
        frames, grid = frames_of(count, height, width), PatchGrid.of_frames(height, width, 16)
        found = suffix_logits(model, network, stream(model, frames, grid, fps))
        assert_close(found, video_forward(model, network, frames, grid, fps))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_prefix_cache_gives_the_same_answer(shape: SmallShape) -> None:
    network = qwen3_vl(shape)
    model = model_of(network, FlashMemoryConfig(csm_slots=4, dam_slots=3, window_slots=2), QWEN3_VL_PIXELS)
    snapshot = stream(model, frames_of(24, 128, 192), PatchGrid(8, 12, 16), 1.0)
    memory = model.new_prefix_cache().allocate(snapshot)
    while not memory.prefill_chunk():
        pass
    answer = memory.start(QUESTION, 8)
    while not answer.done:
        memory.decode_step()
    assert answer.text == model.answer(snapshot, QUESTION, max_new_tokens=8)


def test_a_long_stream_is_its_slots_in_order_of_time() -> None:
    """Against a sequence of transformers' own mergers, positions and language model, put together slot by slot."""
    network = qwen3_vl()
    model = model_of(network, FlashMemoryConfig(csm_slots=4, dam_slots=3, window_slots=2), QWEN3_VL_PIXELS)
    snapshot = stream(model, frames_of(25, 128, 192), PatchGrid(8, 12, 16), 1.0)
    slots = [
        *(("keyframe", one, (8, 12)) for one in snapshot.dam),
        *(("cluster", one, (4, 6)) for one in snapshot.csm),
        *(("window", one, (8, 12)) for one in snapshot.window),
    ]
    seconds = step_times_s(snapshot).tolist()
    shown = sorted(timeline(snapshot).slots.tolist(), key=lambda index: seconds[index])
    kinds = [slots[index][0] for index in shown]
    assert kinds.count("window") == 2
    assert kinds[-1] == "window"
    assert "cluster" in kinds
    visual, encode = network.model.visual, model.tokenizer.encode
    width, text = visual.config.hidden_size, "<|im_start|>user\n"
    merged: list[list[Tensor]] = []
    for index in shown:
        _, features, (rows, columns) = slots[index]
        parts = [part.contiguous() for part in features.split(width, dim=1)]
        mergers = [visual.merger, *visual.deepstack_merger_list]
        merged.append([merger(part) for merger, part in zip(mergers, parts, strict=True)])
        pads = "<|video_pad|>" * (rows * columns // 4)
        text += f"<{seconds[index]:.1f} seconds><|vision_start|>{pads}<|vision_end|>"
    after = f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([encode(text + after)])
    seen = ids == network.config.video_token_id
    grids = torch.tensor([[1, *slots[index][2]] for index in shown])
    positions, _ = network.model.get_rope_index(ids, video_grid_thw=grids, mm_token_type_ids=2 * seen.int())
    embeddings = network.get_input_embeddings()(ids)
    embeddings[seen] = torch.cat([one[0] for one in merged])
    hidden = network.model.language_model(
        inputs_embeds=embeddings,
        position_ids=positions,
        visual_pos_masks=seen,
        deepstack_visual_embeds=[torch.cat([one[level] for one in merged]) for level in (1, 2)],
    ).last_hidden_state
    expected = network.lm_head(hidden)[0, -len(encode(after)) - 1 :]
    assert_close(suffix_logits(model, network, snapshot), expected)


def test_a_cluster_averages_the_features_of_every_level() -> None:
    """All have the same weights, so that what DeepStack adds belongs to what it is added to."""
    network = qwen3_vl()
    model = model_of(network, FlashMemoryConfig(csm_slots=1, dam_slots=1, window_slots=0), QWEN3_VL_PIXELS)
    frames, grid = frames_of(8, 64, 128), PatchGrid(4, 8, 16)
    features = model.encode_steps(frames, grid)
    assert features.low.shape == (4, 8, 3 * 64)
    assert_close(stream(model, frames, grid, 1.0).csm[0], features.low.mean(0))


def test_without_deepstack_it_is_transformers_network_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    """With and without it, the same stream; how much that changes logits of random weights is printed."""
    frames, grid, fps = frames_of(8, 128, 192), PatchGrid(8, 12, 16), 1.0
    whole = qwen3_vl()
    model = model_of(whole, KEPT["all kinds"], QWEN3_VL_PIXELS)
    before = suffix_logits(model, whole, stream(model, frames, grid, fps))
    print_of = model.fingerprint()
    network = qwen3_vl()
    backbone_of(network).drop_deepstack()
    model = model_of(network, KEPT["all kinds"], QWEN3_VL_PIXELS)
    snapshot = stream(model, frames, grid, fps)
    assert model.fingerprint() != print_of
    assert snapshot.csm.shape[-1] == network.config.vision_config.hidden_size
    after = suffix_logits(model, network, snapshot)
    assert_close(after, video_forward(model, network, frames, grid, fps))
    difference = (after - before).abs()
    assert difference.max() > 1e-2
    with capsys.disabled():
        print(
            f"\nDeepStack dropped, random weights: logits change by {difference.mean():.3f} on average and "
            f"{difference.max():.3f} at most, of a standard deviation of {before.std():.3f}; features of a patch take "
            f"{snapshot.csm.shape[-1]} values instead of {snapshot.csm.shape[-1] * 3}"
        )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("size", [(64, 64), (128, 192), (320, 192), (384, 576)], ids=str)
def test_features_of_both_pathways_are_those_of_transformers(shape: SmallShape, size: tuple[int, int]) -> None:
    """Those of the last block, and behind them, in order, those that DeepStack merges."""
    network = qwen3_vl(shape)
    backbone, vision = backbone_of(network), network.model.visual
    frames = torch.randn(6, 3, *size, generator=torch.Generator().manual_seed(1))
    found = backbone.tower.encode(frames)
    for features, pixels in ((found.high, frames), (found.low, functional.avg_pool2d(frames, 2))):
        grid = torch.tensor([[3, pixels.shape[2] // 16, pixels.shape[3] // 16]])
        output = vision(patchify(pixels, 16).flatten(0, 1), grid_thw=grid)
        assert_close(features.flatten(0, 1)[:, : vision.config.hidden_size], output.last_hidden_state)
        merged = backbone.merge(features.flatten(0, 1))
        assert_close(merged.embeddings, output.pooler_output)
        added = [] if merged.deepstack is None else list(merged.deepstack)
        assert len(added) == len(output.deepstack_features)
        for one, expected in zip(added, output.deepstack_features, strict=True):
            assert_close(one, expected)


def test_steps_do_not_see_each_other() -> None:
    tower = Qwen3VLTower(qwen3_vl().model.visual)
    frames = torch.randn(4, 3, 128, 192, generator=torch.Generator().manual_seed(2))
    together, alone = tower.encode(frames), tower.encode(frames[2:])
    assert_close(together.high[1], alone.high[0])
    assert_close(together.low[1], alone.low[0])
