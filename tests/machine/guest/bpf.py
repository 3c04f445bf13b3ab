"""The BPF source on this kernel: the agent, both engines, and bpftool, on the same objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.settings import Bpf as BpfSettings
from otel_hostmetrics.settings import Settings
from otel_hostmetrics.sources.bpf import Bpf
from tests.live.bpfload import Loader
from tests.live.zoo import populate
from tests.machine.guest import commands
from tests.machine.guest.agent import Agent

RUNS = 1000


def run(parameters: dict[str, Any], record: dict[str, Any]) -> None:
    """One object of every type this kernel accepts, and some more; then none of them."""
    if not os.path.ismount("/sys/kernel/tracing"):
        commands.run("mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing")
    with Agent("bpf", Path("/mnt/out/bpf-agent.log"), BPF__STATS="on", BPF__SLOW_INTERVAL="1ms") as agent:
        record["seconds_to_answer"] = agent.seconds_to_answer
        with Loader() as loader:
            record["links"] = populate(loader)
            loader.bulk(20, 20, 5)
            counted = loader.program("socket_filter", name="counted")
            loader.run(counted, RUNS)
            record["counted"] = loader.ids["program"][-1]
            record["ids"], record["refused"], record["pid"] = loader.ids, loader.refused, os.getpid()
            record["page"] = agent.scrape()
            record["bpftool"] = {kind: commands.listed("bpftool", "-j", kind, "show") for kind in ("prog", "map", "link")}
            engines: tuple[Literal["iterator", "ids"], ...] = ("iterator", "ids")
            record["engines"] = {engine: _read(engine) for engine in engines}
        record["page_after"] = agent.scrape()
        record["status"] = agent.close()


def _read(engine: Literal["iterator", "ids"]) -> dict[str, Any]:
    """What the source alone gives with this engine: metric -> points, and what it says is missing."""
    source = Bpf(HostFS(), Settings(bpf=BpfSettings(engine=engine, stats="on")))
    source.open()
    try:
        reading = source.read()
    finally:
        source.close()
    points = {
        metric.name: [[series.attributes, value] for series, value in zip(column.series, column.values, strict=True)]
        for metric, column in reading.columns.items()
    }
    return {"points": points, "problems": [str(problem) for problem in reading.problems], "facts": reading.facts}
