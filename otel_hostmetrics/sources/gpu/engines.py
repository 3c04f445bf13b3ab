"""How busy the engines of a GPU were, from what they had worked at two readings at least a second apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from otel_hostmetrics.sources.gpu.points import Value
from otel_hostmetrics.sources.gpu.watts import SHORTEST

_TASKS = {"rcs": "general", "ccs": "general", "vcs": "video", "vecs": "video", "bcs": "copy"}  # by class of engine
_CLASS = re.compile(r"(?:gt\d+\.)?([a-z]+)\d+")
_Pair: TypeAlias = tuple[Value, Value]  # what an engine worked, and the time it had, both since some beginning


class _Engine(NamedTuple):
    name: str
    work: int  # places in the values of a card
    clock: int


class Engines:
    """Of the values ``engine.NAME.work`` and ``engine.NAME.clock`` among those with *names*, what read() gives under ``names``."""

    def __init__(self, names: Sequence[str]) -> None:
        at = {name: place for place, name in enumerate(names)}
        found = [name[len("engine.") : -len(".work")] for name in names if name.startswith("engine.") and name.endswith(".work")]
        self._engines = [_Engine(name, at[f"engine.{name}.work"], at[f"engine.{name}.clock"]) for name in found]
        by_task: dict[str, list[int]] = {}
        for place, name in enumerate(found):
            match = _CLASS.fullmatch(name)
            by_task.setdefault(_TASKS.get(match[1], "") if match else "", []).append(place)
        by_task.pop("", None)
        self._tasks = list(by_task.values())
        self._general = self._tasks[list(by_task).index("general")] if "general" in by_task else None
        self.names = (
            *(f"engine.{name}.busy" for name in found),
            *(f"busy.{task}" for task in by_task),
            *(["busy.percent"] if self._general else []),
        )
        self._since = float("-inf")
        self._before: list[_Pair] = [(None, None)] * len(found)
        self._values: list[Value] = [None] * len(self.names)

    @property
    def waits(self) -> bool:
        """Whether no window has ended yet."""
        return bool(self._engines) and all(value is None for value in self._values)

    def read(self, values: Sequence[Value], now: float) -> list[Value]:
        """Shares of the last window, which ends now (monotonic s) if it is long enough; None where one of its ends is not known."""
        if self._engines and now - self._since >= SHORTEST:
            pairs = [(values[engine.work], values[engine.clock]) for engine in self._engines]
            shares = [_share(before, after) for before, after in zip(self._before, pairs, strict=True)]
            self._since, self._before = now, pairs
            self._values = [*shares, *(_busiest(shares, places) for places in self._tasks)]
            if self._general:
                general = _busiest(shares, self._general)
                self._values.append(None if general is None else round(100 * general))
        return self._values


def _share(before: _Pair, after: _Pair) -> Value:
    if None in before or None in after:
        return None
    work, clock = (new - old for old, new in zip(before, after, strict=True))  # type: ignore[operator]
    return min(max(work / clock, 0.0), 1.0) if clock > 0 else None


def _busiest(shares: Sequence[Value], places: Iterable[int]) -> Value:
    """Engines of one task overlap: it took at least as long as the busiest of them. None if one is not known."""
    some = [shares[place] for place in places]
    return max(some) if None not in some else None  # type: ignore[type-var]
