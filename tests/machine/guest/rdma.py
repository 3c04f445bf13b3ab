"""The RDMA source on a real kernel: soft-RoCE with traffic, and fakeib; then what goes wrong on hosts, one thing after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.machine.guest import commands, counter_modes, devices
from tests.machine.guest.agent import Agent, once
from tests.machine.guest.traffic import Traffic, connect, ping_pong

_RESOURCES = ("qp", "cm_id", "cq", "mr", "pd", "ctx", "srq")
_CYCLES = 5
_BIG = 1 << 40  # more than 32 bits hold
_CACHED = 0.05  # s: longer than the 12 ms for which the core answers from its last query of hw_counters
_MANY = 100  # counters: more than netlink's message of one page holds


def run(parameters: dict[str, Any], record: dict[str, Any]) -> None:
    """One agent through all of it, so that each step also shows that it came well out of the one before."""
    devices.make_pair()
    devices.load(parameters["fakeib"])
    ping_pong()
    connect()
    with Agent("rdma", Path("/mnt/out/rdma-agent.log"), RDMA__QPS="true") as agent:
        record["seconds_to_answer"] = agent.seconds_to_answer
        with Traffic() as traffic:
            record["traffic"] = {**_moment(agent, traffic.goes_on), "pids": traffic.pids}
        commands.until(lambda: not commands.listed("rdma", "-j", "resource", "show", "mr"), "the end of the traffic's resources")
        record["quiet"] = _moment(agent, lambda: None)
        record["cost"] = {"mlx5": _cost(agent, mlx5_like=1), "other": _cost(agent, mlx5_like=0)}
        record["deleted"], record["added"] = _delete_and_add(agent)
        record["namespace"] = _in_a_namespace()
        record["full"] = _replace(agent, parameters, "full", f"base={_BIG}")
        record["optional"] = _replace(agent, parameters, "optional", enable="cc_rx_ce_pkts")
        record["optional"]["statistic"] = commands.listed("rdma", "-j", "statistic", "show")
        record["modes"] = counter_modes.gather(f"{devices.PAIR[0]}/1", "optional0/1")
        record["large"] = _replace(agent, parameters, "large", f"extra={_MANY}", "nopma=1", "ports=1")
        record["refused"] = _refuse(agent, parameters)
        record["descriptors"] = agent.descriptors()
        record["status"] = agent.close()


def _moment(agent: Agent, wait: Callable[[], None]) -> dict[str, Any]:
    """A page, what the files said before and after it with *wait* in between, and what ``rdma`` says."""
    before = devices.counter_files()
    wait()
    page = agent.scrape()
    wait()
    return {
        "before": before,
        "page": page,
        "after": devices.counter_files(),
        "ports": devices.port_files(),
        "connections": devices.connection_files(),
        "statistic": commands.listed("rdma", "-j", "statistic", "show"),
        "link": commands.listed("rdma", "-j", "-d", "link", "show"),
        "summary": commands.listed("rdma", "-j", "resource", "show"),
        "resources": {kind: commands.listed("rdma", "-j", "resource", "show", kind) for kind in _RESOURCES},
    }


def _cost(agent: Agent, **parameters: int) -> list[dict[str, int]]:
    """Calls of fakeib's driver in each of some cycles."""
    devices.set_parameters(**parameters)
    cycles = []
    for _ in range(_CYCLES):
        time.sleep(_CACHED)
        before = devices.calls()
        agent.scrape()
        after = devices.calls()
        cycles.append({name: after[name] - before[name] for name in after})
    return cycles


def _delete_and_add(agent: Agent) -> tuple[dict[str, Any], dict[str, Any]]:
    """rxe0 goes and comes back, three times: descriptors of a device that is gone must not stay."""
    before = agent.descriptors()
    for _ in range(3):
        commands.run("rdma", "link", "delete", devices.PAIR[0])
        deleted = {"page": agent.scrape()}
        devices.add(0)
        seconds, page = _appears(agent, devices.PAIR[0])
    after = agent.descriptors()
    return deleted, {"page": page, "seconds": seconds, "files": devices.counter_files(), "descriptors": [before, after]}


def _appears(agent: Agent, device: str) -> tuple[float, str]:
    """The first page with counters of *device*, and how long it took."""
    start = time.monotonic()
    wanted = f'rdma_port_stat_total{{device="{device}"'
    page = commands.until(lambda: next((page for page in [agent.scrape()] if wanted in page), ""), f"{device} on the page", limit=40)
    return time.monotonic() - start, page


def _in_a_namespace() -> dict[str, Any]:
    """What an agent says in a network namespace of its own, which a pod has; and which folders it sees there."""
    commands.run("ip", "netns", "add", "pod")
    inside = ("ip", "netns", "exec", "pod")
    folders = commands.run(*inside, "ls", str(devices.ROOT / devices.PAIR[1] / "ports/1")).split()
    page = once("--sources", "rdma", prefix=inside)
    return {"folders": folders, "page": page, "files": devices.counter_files()}


def _replace(agent: Agent, parameters: dict[str, Any], name: str, *settings: str, enable: str = "") -> dict[str, Any]:
    """fakeib gone, and back with other settings as *name*0: the pages after each, and what else goes with the second.

    *enable* is an optional counter of its first port.
    """
    commands.run("rmmod", "fakeib")
    gone = agent.scrape()
    devices.load(parameters["fakeib"], f"devname={name}%d", *settings)
    if enable:
        commands.run("rdma", "statistic", "set", "link", f"{name}0/1", "optional-counters", enable)
    seconds, page = _appears(agent, f"{name}0")
    return {"gone": gone, "page": page, "seconds": seconds, "files": devices.counter_files()}


def _refuse(agent: Agent, parameters: dict[str, Any]) -> dict[str, Any]:
    """A device that refuses counters/ from the start, as a function without rights to them; then everything."""
    record = _replace(agent, parameters, "refuses", "pma_fail=1")
    first = devices.calls()["pma_reads"]
    for _ in range(_CYCLES):
        agent.scrape()
    asked = devices.calls()["pma_reads"] - first
    devices.set_parameters(hw_fail=1)
    time.sleep(_CACHED)
    return {**record, "asked": asked, "both": agent.scrape()}
