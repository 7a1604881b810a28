from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from fvs_ros.memory.snapshot import PatchGrid
from fvs_ros.model.preprocess import (
    PixelConfig,
    frame_grid,
    normalise,
    patchify,
    resize_first,
    resize_frames,
    resize_in_floats,
    resized_size,
    sampled_indices,
)

QWEN3_VL = PixelConfig((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), patch=16)
PUBLISHED = {"min_pixels": 100_352, "max_pixels": 200_704}


@pytest.mark.parametrize(
    ("size", "grid"),
    [((1080, 1920), (24, 40)), ((720, 1280), (24, 40)), ((480, 640), (24, 36)), ((500, 500), (32, 32))],
)
def test_published_sizes(size: tuple[int, int], grid: tuple[int, int]) -> None:
    """The table of processed sizes that the published two-stage resize gives."""
    found = frame_grid(*size, **PUBLISHED, pixels=PixelConfig())
    assert (found.height, found.width) == grid


def test_small_frames_are_enlarged_and_the_checkpoint_has_the_last_word() -> None:
    assert resized_size(56, 56, 28, 100_352, 200_704) == (336, 336)
    grid = frame_grid(480, 480, **PUBLISHED, pixels=PixelConfig(max_pixels=112 * 112))
    assert (grid.height, grid.width) == (8, 8)


def test_a_sliver_is_refused() -> None:
    with pytest.raises(ValueError, match="2010 x 10"):
        frame_grid(10, 2010, **PUBLISHED, pixels=PixelConfig())
    # 200 to 1, and more after the first of the two resizes: the message names the frame that was given.
    with pytest.raises(ValueError, match=r"the frame is 64 x 12800, which becomes 28 x 6328 in whole patches"):
        frame_grid(12800, 64, **PUBLISHED, pixels=PixelConfig())


def test_frames_become_the_same_patches_as_in_transformers() -> None:
    """At its final size already, so that both only normalise and cut."""
    frame = np.random.default_rng(0).integers(0, 256, (56, 112, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=200_704)
    expected = processor(images=[frame], return_tensors="pt")["pixel_values"]  # an image: the frame twice
    grid = frame_grid(56, 112, 56 * 56, 200_704, PixelConfig())
    pixels = normalise(resize_frames([frame, frame], grid, torch.device("cpu")), PixelConfig())
    torch.testing.assert_close(patchify(pixels)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pixels", [PixelConfig(), QWEN3_VL], ids=["Qwen2-VL", "Qwen3-VL"])
def test_200_sizes_become_bit_for_bit_what_they_become_in_transformers(pixels: PixelConfig) -> None:
    """The sizes, and the patches of frames at these sizes; `test_resizing_is_that_of_pillow...` is for in between.

    Qwen2-VL and Qwen2.5-VL have the same processor, which Qwen3-VL has too, with settings of its own. It takes
    multiples of 28 (32) pixels, of which ours are every second, since the pooled frame is cut into patches as well.
    """
    generator = np.random.default_rng(4)
    normal = {"image_mean": list(pixels.mean), "image_std": list(pixels.std)}
    processor = Qwen2VLImageProcessorPil(do_resize=False, patch_size=pixels.patch, **normal)
    bounds = {"min_pixels": 56 * 56, "max_pixels": 112 * 224}
    grids = set()
    for height, width in generator.integers(20, 1_200, (200, 2)).tolist():
        for multiple in (pixels.first_multiple, pixels.frame_multiple):
            expected = smart_resize(height, width, multiple, **bounds)
            assert resized_size(height, width, multiple, **bounds) == expected
        grid = frame_grid(height, width, **bounds, pixels=pixels)
        frame = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        resized = resize_frames([frame, frame], grid, torch.device("cpu"))
        image = resized[0].permute(1, 2, 0).to(torch.uint8).numpy()
        expected = processor(images=[image], return_tensors="pt")
        assert expected["image_grid_thw"].tolist() == [[1, grid.height, grid.width]]
        assert torch.equal(patchify(normalise(resized, pixels), pixels.patch)[0], expected["pixel_values"])
        grids.add((grid.height, grid.width))
    assert len(grids) > 5


def test_resizing_keeps_the_range_and_takes_mixed_sizes() -> None:
    generator = np.random.default_rng(1)
    frames = [generator.integers(0, 2, (h, w, 3), dtype=np.uint8) * 255 for h, w in ((90, 70), (224, 300))]
    grid = frame_grid(112, 112, 12_544, 12_544, PixelConfig())
    resized = resize_frames(frames, grid, torch.device("cpu"))
    assert resized.shape == (2, 3, 112, 112)
    assert resized.min() >= 0
    assert resized.max() <= 255
    assert torch.equal(resized, resized.round())


@pytest.mark.parametrize(("rows", "columns"), [(24, 30), (2, 3), (5, 40)])
def test_resizing_is_that_of_pillow_on_every_device(rows: int, columns: int) -> None:
    """Sharp edges, at which bicubic overshoots, show whether it is clipped where Pillow clips."""
    generator = np.random.default_rng(2)
    frame = np.kron(generator.integers(0, 2, (9, 12, 3), dtype=np.uint8) * 255, np.ones((rows, columns, 1), np.uint8))
    grid = PatchGrid(8, 16)
    pillow = Image.fromarray(frame).resize((16 * 14, 8 * 14), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(pillow)).permute(2, 0, 1)[None].float()
    resized = resize_frames([frame], grid, torch.device("cpu"))
    floats = resize_in_floats(torch.from_numpy(frame).permute(2, 0, 1)[None], (8 * 14, 16 * 14))
    for found in (resized, floats):
        assert (found - expected).abs().max() <= 1
        assert (found != expected).float().mean() < 0.05


def test_the_published_two_resizes_are_those_of_pillow() -> None:
    """640 x 480 to 504 x 364, in multiples of 28, and that to 504 x 336, in multiples of 56."""
    frame = np.random.default_rng(3).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    first = resize_first(frame, **PUBLISHED)
    assert first.shape == (364, 504, 3)
    pillow = Image.fromarray(frame)
    for size in ((504, 364), (504, 336)):
        pillow = pillow.resize(size, Image.Resampling.BICUBIC)
    grid = frame_grid(480, 640, **PUBLISHED, pixels=PixelConfig())
    twice, once = (resize_frames([image], grid, torch.device("cpu"))[0] for image in (first, frame))
    expected = torch.from_numpy(np.array(pillow)).permute(2, 0, 1).float()
    assert (twice - expected).abs().max() <= 2
    assert (twice != expected).float().mean() < 0.01
    assert (once != expected).float().mean() > 0.5


def test_the_two_frames_of_a_step_keep_their_order_within_a_patch() -> None:
    frames = torch.stack([torch.zeros(3, 56, 56), torch.ones(3, 56, 56)])
    patches = patchify(frames).reshape(1, 16, 3, 2, 14, 14)
    assert (patches[:, :, :, 0] == 0).all()
    assert (patches[:, :, :, 1] == 1).all()


def test_preprocessor_settings_of_both_layouts() -> None:
    old = PixelConfig.from_preprocessor({"min_pixels": 3136, "max_pixels": 50_000, "image_mean": [0.5, 0.5, 0.5]})
    new = PixelConfig.from_preprocessor(
        {"size": {"shortest_edge": 3136, "longest_edge": 50_000}, "image_mean": [0.5, 0.5, 0.5]}
    )
    assert old == new == PixelConfig.from_preprocessor(old.to_preprocessor())
    assert PixelConfig.from_preprocessor({}) == PixelConfig()


@pytest.mark.parametrize("values", [{"image_mean": [0.5]}, {"max_pixels": "many"}, {"min_pixels": -1}])
def test_broken_preprocessor_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        PixelConfig.from_preprocessor(values)


def test_indices_are_rounded_to_the_nearest_frame_as_published() -> None:
    assert sampled_indices(8, 4) == [0, 2, 5, 7]
    assert sampled_indices(12, 6) == [0, 2, 4, 7, 9, 11]
    assert sampled_indices(100, 8) == [0, 14, 28, 42, 57, 71, 85, 99]


@pytest.mark.parametrize(("count", "most"), [(2, 2), (3, 2), (3, 4), (240, 240), (241, 240), (1000, 240)])
def test_indices_are_even_in_number_and_reach_from_first_to_last(count: int, most: int) -> None:
    indices = sampled_indices(count, most)
    assert len(indices) % 2 == 0
    assert len(indices) <= most
    assert (indices[0], indices[-1]) == (0, count - 1)
    assert list(indices) == sorted(indices)
