import pytest

from fvs_ros.memory.config import FlashMemoryConfig
from fvs_ros.memory.snapshot import PatchGrid


def test_published_lengths_are_frames_and_halve_to_grid_steps() -> None:
    published = {"flash_memory_temporal_length": 12, "flash_memory_spatial_length": 6}
    config = FlashMemoryConfig.from_published(published)
    assert (config.csm_slots, config.dam_slots) == (6, 3)


@pytest.mark.parametrize("published", [None, {}])
def test_missing_settings_take_the_published_defaults(published: dict[str, object] | None) -> None:
    config = FlashMemoryConfig.from_published(published)
    assert (config.csm_slots, config.dam_slots, config.horizon) == (60, 30, 120)


def test_writing_and_reading_back_is_identity() -> None:
    config = FlashMemoryConfig(csm_slots=8, dam_slots=5, window_slots=2, time_code=0.25, time_weight=250.0)
    assert FlashMemoryConfig.from_published(config.to_published()) == config


def test_the_published_settings_know_nothing_of_what_was_added() -> None:
    assert not any("window" in key or "time_" in key for key in FlashMemoryConfig().to_published())
    read = FlashMemoryConfig.from_published({})
    assert (read.window_slots, read.time_code, read.time_weight) == (0, 0, 0)


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"flash_memory_temporal_length": 13}, "13.*even"),
        ({"flash_memory_window_length": 1}, "window_length is 1.*even, at least 0"),
        ({"flash_memory_window_length": -2}, "window_length is -2"),
        ({"flash_memory_time_code": "0.1"}, "time_code is '0.1'; it must be a number"),
        ({"flash_memory_time_code": -0.1}, "time_code is -0.1; it must be a finite number of 0 or above"),
        ({"flash_memory_time_weight": True}, "time_weight is True; it must be a number"),
        ({"flash_memory_time_weight": float("inf")}, "time_weight is inf; it must be a finite number of 0 or above"),
        ({"flash_memory_spatial_length": "60"}, "'60'.*even"),
        ({"flash_memory_temporal_method": "dbscan"}, "'dbscan'.*'kmeans_ordered'"),
        ({"flash_memory_spatial_method": "sample"}, "'sample'.*'klarge_retrieve'"),
        ({"flash_memory_temporal_poolsize": 4}, "poolsize is 4"),
        ({"flash_memory_temporal_length": 4, "flash_memory_spatial_length": 6}, "dam_slots is 3, csm_slots 2"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(published: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlashMemoryConfig.from_published(published)


def test_unknown_settings_are_named_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    assert FlashMemoryConfig.from_published({"flash_memory_mood": 1}) == FlashMemoryConfig()
    assert "mood" in caplog.text


@pytest.mark.parametrize("values", [{"csm_slots": 0}, {"dam_slots": 0}, {"horizon": 1}])
def test_sizes_below_the_least_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        FlashMemoryConfig(**values)


def test_a_window_of_fewer_than_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="window_slots is -1; it must be 0 or above"):
        FlashMemoryConfig(window_slots=-1)


def test_a_full_memory_has_the_tokens_of_all_its_slots() -> None:
    config = FlashMemoryConfig(csm_slots=5, dam_slots=3, window_slots=2)
    assert config.tokens(PatchGrid(8, 4)) == (3 + 2) * 8 + 5 * 2
