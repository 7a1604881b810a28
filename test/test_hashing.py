from __future__ import annotations

import pytest

from fvs_ros.hashing import config_hash

SETTINGS = {"model": "abc", "max_frames": 240}


def test_the_hash_goes_by_the_settings_alone() -> None:
    assert config_hash(SETTINGS) == config_hash(dict(reversed(SETTINGS.items())))
    assert config_hash(SETTINGS) != config_hash(SETTINGS | {"max_frames": 120})


def test_a_longer_hash_begins_with_the_shorter_one() -> None:
    assert len(config_hash(SETTINGS)) == 12
    assert config_hash(SETTINGS, 64).startswith(config_hash(SETTINGS))


def test_what_json_cannot_hold_has_no_hash() -> None:
    with pytest.raises(TypeError):
        config_hash(object())
    with pytest.raises(ValueError, match="not JSON compliant"):
        config_hash(float("nan"))
