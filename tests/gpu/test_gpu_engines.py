"""Shares of engines, from what they had worked at two moments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.sources.gpu.engines import Engines

NAMES = tuple(f"engine.{engine}.{what}" for engine in ("rcs0", "ccs0", "vcs0", "gt1.vecs0") for what in ("work", "clock"))
SHARES = ("engine.rcs0.busy", "engine.ccs0.busy", "engine.vcs0.busy", "engine.gt1.vecs0.busy", "busy.general", "busy.video", "busy.percent")


def read(engines, now, *pairs):
    return dict(zip(engines.names, engines.read([0, *(value for pair in pairs for value in pair)], now), strict=True))


def test_a_task_took_as_long_as_its_busiest_engine():
    engines = Engines(("gt.0.clock_mhz", *NAMES))
    assert engines.names == SHARES
    first = read(engines, 100, (5, 1000), (0, 1000), (7, 50), (0, 50))
    assert set(first.values()) == {None}
    second = read(engines, 101, (255, 2000), (504, 2000), (7, 150), (100, 150))
    assert second == dict(zip(SHARES, (0.25, 0.504, 0.0, 1.0, 0.504, 1.0, 50), strict=True))


def test_a_reading_within_a_second_leaves_the_shares_as_they_are():
    engines = Engines(("", *NAMES))
    read(engines, 100, *[(0, 0)] * 4)
    before = read(engines, 101, *[(50, 100)] * 4)
    assert read(engines, 101.9, *[(51, 101)] * 4) == before
    assert read(engines, 102, *[(50, 200)] * 4)["busy.general"] == 0.0  # since 101


def test_what_is_not_known_at_both_ends_has_no_share_and_nor_has_its_task():
    engines = Engines(("", *NAMES))
    read(engines, 100, *[(0, 0)] * 4)
    shares = read(engines, 101, (10, 100), (None, None), (20, 100), (0, 100))
    assert (shares["engine.rcs0.busy"], shares["engine.ccs0.busy"], shares["busy.general"], shares["busy.percent"]) == (
        0.1,
        None,
        None,
        None,
    )
    assert shares["busy.video"] == 0.2
    assert read(engines, 102, *[(100, 200)] * 4)["engine.ccs0.busy"] is None


@given(st.lists(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=4, max_size=4), max_size=5))
def test_shares_of_any_counts_are_shares(readings):
    engines = Engines(("", *NAMES))
    for now, pairs in enumerate(readings):
        shares = read(engines, now, *pairs)
        percent = shares.pop("busy.percent")
        assert percent is None or 0 <= percent <= 100
        assert all(share is None or 0 <= share <= 1 for share in shares.values())


def test_a_card_without_engines_has_no_shares():
    assert Engines(("vram.used",)).names == ()
    assert Engines(("vram.used",)).read([1], 5) == []
