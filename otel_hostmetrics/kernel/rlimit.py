"""How many descriptors this process may have: RLIMIT_NOFILE, getrlimit(2)."""

from __future__ import annotations

import resource


def kept(most: int, share: int) -> int:
    """How many files one part of the agent may keep open: *most*, and no more than one *share*-th of what the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else min(soft // share, most)
