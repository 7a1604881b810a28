"""The one hash of a configuration: it names a run's settings, an exported video's folder, a cached tensor's file."""

from __future__ import annotations

import hashlib
import json

# 48 bits: two configurations of one folder meet by chance once in 10^14.
_DIGITS = 12


def config_hash(value: object, digits: int = _DIGITS) -> str:
    """The first `digits` hexadecimal digits of a hash of what JSON can hold; the order of names does not count.

    Raises:
        TypeError, ValueError: JSON cannot hold the value.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
