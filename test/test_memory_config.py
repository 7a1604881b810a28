import re
from typing import Any

import pytest

from fvs_ros.memory.config import SPATIAL_METHODS, TEMPORAL_METHODS, FlashMemoryConfig
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
    config = FlashMemoryConfig(
        csm_slots=8, dam_slots=5, window_slots=2, time_code=0.25, clock_code=0.125, time_weight=250.0
    )
    published = config.to_published()
    assert published["flash_memory_clock_code"] == 0.125
    assert FlashMemoryConfig.from_published(published) == config


def test_the_published_settings_know_nothing_of_what_was_added() -> None:
    assert not any("window" in key or "time_" in key or "clock" in key for key in FlashMemoryConfig().to_published())
    read = FlashMemoryConfig.from_published({})
    assert (read.window_slots, read.time_code, read.clock_code, read.time_weight) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"flash_memory_window_length": -2}, "window_length is -2"),
        ({"flash_memory_time_code": "0.1"}, "time_code is '0.1'; it must be a number"),
        ({"flash_memory_time_code": -0.1}, "time_code is -0.1; it must be a finite number of 0 or above"),
        ({"flash_memory_clock_code": "noon"}, "clock_code is 'noon'; it must be a number"),
        ({"flash_memory_clock_code": float("nan")}, "clock_code is nan; it must be a finite number of 0 or above"),
        ({"flash_memory_time_weight": True}, "time_weight is True; it must be a number"),
        ({"flash_memory_time_weight": float("inf")}, "time_weight is inf; it must be a finite number of 0 or above"),
        ({"flash_memory_spatial_length": "60"}, "spatial_length is '60'; .*whole number"),
        ({"flash_memory_temporal_length": -2}, "temporal_length is -2"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(published: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlashMemoryConfig.from_published(published)


@pytest.mark.parametrize(
    ("published", "taken", "warning"),
    [
        ({"temporal_method": "dbscan"}, {}, "temporal_method is 'dbscan'.*kmeans_ordered is used.*--temporal-method"),
        ({"temporal_method": "pca_kmeans_ordered"}, {}, "pca_kmeans_ordered.*kmeans_ordered is used"),
        ({"temporal_method": "Sample"}, {"temporal_method": "sample", "spatial_method": "sample"}, "sample is used"),
        ({"spatial_method": "sample60pos"}, {"spatial_method": "sample"}, "sample is used.*--spatial-method"),
        ({"spatial_method": "klarge_retrieve_l1"}, {}, "klarge_retrieve is used"),
        ({"spatial_method": None}, {}, "spatial_method is None.*klarge_retrieve is used"),
        ({"temporal_poolsize": 1}, {}, "temporal_poolsize is 1; 2 is used"),
        ({"temporal_length": 119}, {"csm_slots": 60}, "temporal_length is 119.*even, so 120 are used"),
        ({"temporal_length": 0, "spatial_length": 0}, {}, "are 0.*the published 120 and 60 are used"),
        ({"temporal_length": 4, "spatial_length": 6}, {"csm_slots": 2, "dam_slots": 3}, "3 weighted.*evenly spaced"),
        ({"temporal_method": "sample"}, {"temporal_method": "sample"}, "from 61 steps on.*evenly spaced"),
    ],
)
def test_what_is_not_supported_is_replaced_by_what_is_nearest_with_a_warning(
    published: dict[str, object], taken: dict[str, Any], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    if taken.get("spatial_method") == "sample":
        published = {"spatial_method": "sample", **published}
    prefixed = {f"flash_memory_{key}": value for key, value in published.items()}
    assert FlashMemoryConfig.from_published(prefixed) == FlashMemoryConfig(**taken)
    assert len(caplog.messages) == 1
    assert re.search(warning, caplog.text)


@pytest.mark.parametrize("temporal", TEMPORAL_METHODS)
@pytest.mark.parametrize("spatial", SPATIAL_METHODS)
def test_every_supported_method_is_read_and_written_back(temporal: str, spatial: str) -> None:
    config = FlashMemoryConfig(temporal_method=temporal, spatial_method=spatial)
    published = config.to_published()
    assert published["flash_memory_temporal_method"] == temporal
    assert published["flash_memory_spatial_method"] == spatial
    assert FlashMemoryConfig.from_published(published) == config


@pytest.mark.parametrize(("csm", "dam"), [(0, 60), (120, 0)])
def test_a_length_of_0_leaves_out_one_memory(csm: int, dam: int) -> None:
    published = {
        "flash_memory_temporal_length": csm,
        "flash_memory_spatial_length": dam,
        "flash_memory_spatial_method": "sample",
    }
    config = FlashMemoryConfig.from_published(published)
    assert (config.csm_slots, config.dam_slots) == (csm // 2, dam // 2)
    assert config.tokens(PatchGrid(8, 4)) == dam // 2 * 8 + csm // 2 * 2


def test_methods_are_overridden_by_name() -> None:
    config = FlashMemoryConfig()
    assert config.with_methods("auto", "auto") is config
    changed = config.with_methods("sample", "sample")
    assert (changed.temporal_method, changed.spatial_method) == ("sample", "sample")
    with pytest.raises(ValueError, match="spatial_method is 'uniform'; set it to one of klarge_retrieve, "):
        config.with_methods(spatial_method="uniform")


def test_sizes_are_overridden_one_by_one() -> None:
    config = FlashMemoryConfig.untrained()
    assert config.with_slots() == config == FlashMemoryConfig(csm_slots=60, dam_slots=30, window_slots=2)
    assert config.with_slots(window_slots=0) == FlashMemoryConfig()
    assert config.with_slots(csm_slots=0, dam_slots=5) == FlashMemoryConfig(csm_slots=0, dam_slots=5, window_slots=2)
    with pytest.raises(ValueError, match="window_slots is -2; it must be 0 or above"):
        config.with_slots(window_slots=-2)
    with pytest.raises(ValueError, match="10001 slots of one kind; at most 10000"):
        config.with_slots(csm_slots=10_001)


def test_unknown_settings_are_named_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    assert FlashMemoryConfig.from_published({"flash_memory_mood": 1}) == FlashMemoryConfig()
    assert "mood" in caplog.text


@pytest.mark.parametrize("values", [{"csm_slots": 0, "dam_slots": 0}, {"dam_slots": -1}, {"horizon": 1}])
def test_sizes_below_the_least_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        FlashMemoryConfig(**values)


def test_a_window_of_fewer_than_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="window_slots is -1; it must be 0 or above"):
        FlashMemoryConfig(window_slots=-1)


def test_a_full_memory_has_the_tokens_of_all_its_slots() -> None:
    config = FlashMemoryConfig(csm_slots=5, dam_slots=3, window_slots=2)
    assert config.tokens(PatchGrid(8, 4)) == (3 + 2) * 8 + 5 * 2
