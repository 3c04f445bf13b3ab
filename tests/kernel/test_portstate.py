"""States of ports, read again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.portstate import PortState, PortStates


@pytest.fixture
def ports(tmp_path: Path) -> list[Path]:
    directories = [tmp_path / f"sys/class/infiniband/mlx5_{number}/ports/1" for number in range(2)]
    for directory in directories:
        directory.mkdir(parents=True)
        (directory / "state").write_text("4: ACTIVE\n")
        (directory / "phys_state").write_text("5: LinkUp\n")
    return directories


def numbers(states: PortStates) -> list[tuple[int, int] | Reason]:
    return [state.reason if isinstance(state, Unavailable) else (state[0].number, state[1].number) for state in states.read()]


def test_unchanged_states_are_the_same_object(tmp_path: Path, ports: list[Path]) -> None:
    states = PortStates(PortState(HostFS(str(tmp_path)), f"mlx5_{number}", 1) for number in range(2))
    first = states.read()
    assert states.read() is first
    (ports[1] / "state").write_text("1: DOWN\n")
    assert numbers(states) == [(4, 5), (1, 5)]
    assert states.read() is states.read() is not first
    states.close()
    states.close()


def test_a_port_that_fails_costs_itself_and_is_tried_again(tmp_path: Path, ports: list[Path]) -> None:
    states = PortStates(PortState(HostFS(str(tmp_path)), f"mlx5_{number}", 1) for number in range(2))
    assert numbers(states) == [(4, 5), (4, 5)]
    (ports[0] / "phys_state").write_text("?\n")
    assert numbers(states) == [Reason.MALFORMED, (4, 5)]
    assert numbers(states) == [Reason.MALFORMED, (4, 5)]
    (ports[0] / "phys_state").write_text("3: Disabled\n")
    assert numbers(states) == [(4, 3), (4, 5)]
    states.close()
