"""How signs of any vendor make the states of hw.status."""

from __future__ import annotations

from collections.abc import Sequence

from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.sources.gpu.points import Value

STATES = (*hardware.STATES, "predicted_failure")
FAILED = tuple(int(state == "failed") for state in STATES)  # of a GPU that is lost


def states(degraded: bool | None, worn: bool | None, lost: bool | None, *, wears: bool) -> tuple[Value, ...]:
    """In the order of STATES; None for one that nothing supported by this GPU tells, or not in this cycle.

    *wears*: whether this GPU tells of its memory at all. It is ok where clocks are known not to be held down and nothing else
    speaks against it.
    """
    ok = False if degraded or worn or lost else None if degraded is None or (worn is None and wears) else True
    return tuple(None if state is None else int(state) for state in (ok, degraded, lost, worn))


def told(signs: Sequence[Value]) -> bool | None:
    """Whether one of them is raised; None where none is and not all are known."""
    if any(signs):
        return True
    return None if None in signs or not signs else False
