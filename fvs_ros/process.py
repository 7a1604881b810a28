"""What the operating system says of this process."""

from __future__ import annotations

import resource


def resident_bytes() -> int:
    """Host memory that the process holds now, in bytes; the largest so far where /proc is missing."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
