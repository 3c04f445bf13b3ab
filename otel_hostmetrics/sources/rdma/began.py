"""When a counter began that the kernel or a device has kept since before we looked."""

from __future__ import annotations

import time


def booted_ns() -> int:
    """Unix time at which this kernel started: nothing that a driver counts is older. Suspended time counts."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
