"""An agent that wakes up once a second finds its memory cold, and so does what it is compared with.

Emptying the caches instead of waiting a second measures the same (RAPL: the same ratios), with 50 samples in the time of
one, so that a difference of 2 % shows. All processors at once: who is measured may run on any.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Final

_SIZE: Final = 48 << 20  # bytes: more than the last level of most processors


class Caches:
    """Two blocks of memory, to be compared by every processor, which pushes out everything else."""

    def __init__(self) -> None:
        self._memcmp = ctypes.CDLL(None).memcmp  # without the GIL
        self._blocks = [ctypes.create_string_buffer(b"\1" * _SIZE, _SIZE) for _ in range(2)]

    def empty(self) -> None:
        threads = [threading.Thread(target=self._compare, args=(each,)) for each in os.sched_getaffinity(0)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    def _compare(self, processor: int) -> None:
        os.sched_setaffinity(0, {processor})  # of this thread
        self._memcmp(*self._blocks, ctypes.c_size_t(_SIZE))
