from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from fvs_ros.memory.snapshot import PatchGrid, StepFeatures
from fvs_ros.model.frame_encoder import LARGEST_GRAPH, EncodeGraph, FrameEncoder, graph_sizes
from fvs_ros.model.preprocess import PixelConfig, normalise, resize_frames
from fvs_ros.model.qwen2_vl import Qwen2VLTower
from fvs_ros.model.tiny import tiny_network_config

GRID = PatchGrid(4, 8)


@pytest.fixture(scope="module")
def tower() -> Qwen2VLTower:
    torch.manual_seed(0)
    module = Qwen2VisionTransformerPretrainedModel(tiny_network_config().vision_config)
    return Qwen2VLTower(module.eval().requires_grad_(False))


def camera(count: int, size: tuple[int, int] = (90, 160), seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 8, 9, 31])
def test_steps_are_cut_into_few_sizes_without_padding(steps: int) -> None:
    sizes = list(graph_sizes(steps))
    assert sum(sizes) == steps
    assert sizes == sorted(sizes, reverse=True)
    assert all(size & (size - 1) == 0 and size <= LARGEST_GRAPH for size in sizes)
    assert len(set(sizes)) == len([size for size in sizes if size < LARGEST_GRAPH]) + (LARGEST_GRAPH in sizes)


def test_a_recorded_pass_gives_each_call_features_of_its_own(tower: Qwen2VLTower) -> None:
    """The recorded function, called as it is and into the same tensors each time."""

    def capture(function: Callable[[], StepFeatures]) -> Callable[[], StepFeatures]:
        static = function()

        def launch() -> StepFeatures:
            for old, new in zip(vars(static).values(), vars(function()).values(), strict=True):
                old.copy_(new)
            return static

        return launch

    graph = EncodeGraph(tower, GRID, 2, capture)
    pixels = [torch.randn(4, 3, 4 * 14, 8 * 14) for _ in range(2)]
    found = [graph(one) for one in pixels]
    for one, features in zip(pixels, found, strict=True):
        expected = tower.encode(one)
        assert torch.equal(features.high, expected.high)
        assert torch.equal(features.low, expected.low)


def test_frames_of_several_sizes_and_read_only_ones_are_encoded(tower: Qwen2VLTower) -> None:
    frames = [*camera(2), *camera(2, (60, 60))]
    frames[0].flags.writeable = False
    encoder = FrameEncoder(tower, PixelConfig())
    features = encoder.encode(frames, GRID)
    assert features.high.shape == (2, GRID.patches, 64)
    alone = encoder.encode(frames[2:], GRID)
    torch.testing.assert_close(features.high[1:], alone.high, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_graphs_give_what_the_plain_pass_gives_without_waiting(tower: Qwen2VLTower) -> None:
    device = torch.device("cuda")
    tower.module.to(device)
    try:
        encoder = FrameEncoder(tower, PixelConfig())
        frames = camera(6)
        encoder.encode(frames, GRID)
        torch.cuda.set_sync_debug_mode("error")
        try:
            features = encoder.encode(frames, GRID)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        plain = tower.encode(normalise(resize_frames(frames, GRID, device), PixelConfig()))
        torch.testing.assert_close(features.high, plain.high, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(features.low, plain.low, atol=1e-3, rtol=1e-3)
    finally:
        tower.module.to("cpu")
