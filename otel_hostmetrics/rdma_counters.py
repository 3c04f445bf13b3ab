"""``otel-hostmetrics rdma``: which counters RDMA ports keep beside those that are always there.

Counter sets of queue pairs cost the adapter counters, and optional counters may cost it speed, so the agent reads what is on
and turns nothing on. This does, when somebody types it. It lasts until the driver is loaded again.

Exit status: 0; 1 when the kernel or the driver refuses; 2 for wrong usage; 77 without the right to do it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.nldev_const import MASK_PID, MASK_QP_TYPE, MODE_AUTO, MODE_MANUAL

if TYPE_CHECKING:
    from otel_hostmetrics.kernel.nldev import Nldev
    from otel_hostmetrics.kernel.nldev_records import CounterMode, CounterStatus

_REFUSED, _DENIED = 1, 77  # the second is EX_NOPERM of sysexits.h
_MASKS = {"type": MASK_QP_TYPE, "pid": MASK_PID}

app = typer.Typer(help="Show or set which further counters RDMA ports keep.", no_args_is_help=True)

Link = Annotated[str, typer.Argument(metavar="DEVICE[/PORT]", help="mlx5_0/1; without a port, all of the device")]
Links = Annotated[str, typer.Argument(metavar="[DEVICE[/PORT]]", help="mlx5_0/1; without a port all of the device; without a device all")]
By = Annotated[str, typer.Option("--by", metavar="type,pid", help="What queue pairs of one counter set have in common")]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Optional counters to turn on, as `rdma show` lists them")]


class Port(NamedTuple):
    """A port as netlink and as people know it."""

    device: int
    number: int
    name: str


@app.command()
def show(link: Links = "") -> None:
    """Print, for each port, how queue pairs are counted and which optional counters there are."""
    with _asking() as nldev:
        for port in _ports(nldev, link):
            typer.echo(f"{port.name}: {state(nldev, port)}")


@app.command()
def auto(link: Link, by: By = "type,pid") -> None:
    """Give new queue pairs counter sets, one for each type and process. Needs CAP_NET_ADMIN."""
    mask = sum({_MASKS.get(word.strip(), 0) for word in by.split(",")})
    if not mask or not {word.strip() for word in by.split(",")} <= _MASKS.keys():
        raise typer.BadParameter(f"--by takes type, pid or type,pid, got {by!r}")
    with _asking() as nldev:
        for port in _ports(nldev, link):
            nldev.set_counter_mode(port.device, port.number, mask)
            typer.echo(f"{port.name}: {state(nldev, port)}; queue pairs that are there already are not counted")


@app.command()
def off(link: Link) -> None:
    """Give new queue pairs no counter sets any more. Needs CAP_NET_ADMIN."""
    with _asking() as nldev:
        for port in _ports(nldev, link):
            if nldev.counter_mode(port.device, port.number).mode == MODE_AUTO:  # else the kernel takes it for a mistake
                nldev.set_counter_mode(port.device, port.number, 0)
            typer.echo(f"{port.name}: {state(nldev, port)}")


@app.command()
def optional(link: Link, names: Names = None) -> None:
    """Turn on these optional counters, and off the others; without a name, all off. Needs CAP_NET_ADMIN."""
    with _asking() as nldev:
        for port in _ports(nldev, link):
            nldev.enable_counters(port.device, port.number, _numbers(nldev, port, names or ()))
            typer.echo(f"{port.name}: {state(nldev, port)}")


def state(nldev: Nldev, port: Port) -> str:
    """In one line. Raises Unavailable."""
    counted = f"queue pairs {_mode(nldev.counter_mode(port.device, port.number))}"
    known = [f"{counter.name} {'on' if counter.enabled else 'off'}" for counter in _optional(nldev, port)]
    return f"{counted}; optional counters: {', '.join(known) or 'none'}"


def _mode(mode: CounterMode) -> str:
    if mode.mode == MODE_AUTO:
        return f"counted by {','.join(name for name, bit in _MASKS.items() if (mode.mask or 0) & bit)}"
    return "counted where bound by hand" if mode.mode == MODE_MANUAL else "not counted"


def _optional(nldev: Nldev, port: Port) -> list[CounterStatus]:
    """None before Linux 5.16."""
    try:
        return [counter for counter in nldev.counter_status(port.device, port.number) if counter.enabled is not None]
    except Unavailable as error:
        if error.reason is Reason.UNSUPPORTED:
            return []
        raise


def _numbers(nldev: Nldev, port: Port, names: Iterable[str]) -> Sequence[int]:
    known = {counter.name: counter.number for counter in _optional(nldev, port) if counter.number is not None}
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{port.name} has no optional counter {name!r}; it has {', '.join(known) or 'none'}")
    return [known[name] for name in names]


def _ports(nldev: Nldev, link: str) -> list[Port]:
    """Raises typer.BadParameter if there is no such port."""
    device, slash, number = link.partition("/")
    found = [
        Port(each.number, port, f"{each.name}/{port}")
        for each in nldev.devices()
        for port in range(1, (each.ports or 0) + 1)
        if device in ("", each.name) and (not slash or number == str(port))
    ]
    if not found:
        raise typer.BadParameter(f"no RDMA port {link!r} in this network namespace")
    return found


@contextlib.contextmanager
def _asking() -> Iterator[Nldev]:
    """The kernel, if it has RDMA devices: else the question would make it load modules. What it refuses ends the command."""
    from otel_hostmetrics.kernel import nldev
    from otel_hostmetrics.kernel.hostfs import HostFS
    from otel_hostmetrics.sources.rdma.listing import listing

    try:
        listing(HostFS())
        asked = nldev.connect()
        try:
            yield asked
        finally:
            asked.close()
    except Unavailable as error:
        denied = error.reason is Reason.DENIED
        cure = f"; it takes {error.needs}: run it as root" if denied else ""
        typer.echo(f"otel-hostmetrics: {error}{cure}", err=True)
        raise typer.Exit(_DENIED if denied else _REFUSED) from None
