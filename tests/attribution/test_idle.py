"""What a GPU takes while nobody uses it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.attribution.energy import Step
from otel_hostmetrics.attribution.idle import Idle
from otel_hostmetrics.catalogue import gpu
from tests.attribution.cycles import points

S = 10**9  # ns


def none_on(*parts: str):
    return {"gpu": points(gpu.PROCESSES, *(({"hw.id": part}, 0) for part in parts))}


def learned(*steps: tuple[int, int]) -> Idle:
    """Of (uJ, ns) each."""
    idle = Idle()
    idle.look(none_on("A"), 0)
    for energy, ns in steps:
        idle.learn(Step("gpu", "A", energy, ns))
    return idle


def test_the_least_power_of_windows_of_five_seconds_counts():
    assert learned((1_000_000, S)).watts == {}  # too short
    assert learned((0, S // 10), (200_000_000, 5 * S)).watts == {"A": 200_000_000 * S // (51 * S // 10) / 1e6}
    assert learned((200_000_000, 5 * S), (150_000_000, 5 * S), (250_000_000, 5 * S)).watts == {"A": 30.0}


def test_a_counter_that_stands_still_is_no_power():
    assert learned((0, 100 * S)).watts == {}
    assert learned((0, 100 * S)).energy(Step("gpu", "A", 5, S)) is None


def test_a_window_ends_where_a_process_comes():
    idle = learned((100_000_000, 4 * S))
    idle.look({}, 4 * S)
    idle.look(none_on("A"), 5 * S)
    idle.learn(Step("gpu", "A", 30_000_000, S))
    assert idle.watts == {}


def test_each_gpu_has_its_own():
    idle = learned((150_000_000, 5 * S))
    assert idle.energy(Step("gpu", "A", 10**9, S)) == 30_000_000
    assert idle.energy(Step("gpu", "B", 10**9, S)) is None


def test_nobody_was_there_only_if_every_cycle_said_so():
    idle = Idle()
    idle.look(none_on("A", "B"), 10 * S)
    idle.look(none_on("A"), 20 * S)
    idle.look(none_on("A", "B"), 30 * S)
    cases = {("A", 10): True, ("A", 20): True, ("A", 21): False, ("B", 10): False, ("B", 0): True, ("C", 0): False}
    assert {(part, seconds): idle.unused(Step("gpu", part, 1, seconds * S), 30 * S) for part, seconds in cases} == cases


@given(
    st.floats(0, 10_000),
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**13))),
    st.integers(0, 10**12),
    st.integers(0, 10**13),
)
def test_idle_energy_is_never_more_than_there_is(watts, steps, energy, ns):
    idle = Idle(watts)
    for each in steps:
        idle.learn(Step("gpu", "A", *each))
    found = idle.energy(Step("gpu", "A", energy, ns))
    assert found is None or 0 <= found <= energy
