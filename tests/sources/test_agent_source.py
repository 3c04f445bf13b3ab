"""The agent's metrics of its own process."""

from __future__ import annotations

import os
import resource
import threading
import time

import psutil

from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.model import Reading
from otel_hostmetrics.sources.agent import Agent
from otel_hostmetrics.telemetry import Telemetry


def values(reading: Reading, row) -> list[object]:
    return list(reading.columns[row].values)


def test_what_it_says_of_the_process_is_what_psutil_says():
    source, process = Agent(Telemetry()), psutil.Process()
    source.open()
    before = process.cpu_times()
    reading = source.read()
    after = process.cpu_times()
    cpu = {series.attributes["cpu.mode"]: value for series, value in zip(*reading.columns[rows.CPU_TIME], strict=True)}
    tick = 1 / os.sysconf("SC_CLK_TCK")  # psutil reads clock ticks, getrusage microseconds
    assert before.user - tick <= cpu["user"] <= after.user + tick
    assert before.system - tick <= cpu["system"] <= after.system + tick
    assert abs(values(reading, rows.MEMORY_USAGE)[0] - process.memory_info().rss) < 4 << 20
    assert values(reading, rows.THREADS) == [process.num_threads()]
    assert values(reading, rows.DESCRIPTORS) == [process.num_fds() - 1]  # psutil counts the one it lists with
    assert abs(values(reading, rows.START_TIME)[0] - process.create_time()) < 1.1
    source.close()


def test_descriptors_and_threads_are_counted():
    source = Agent(Telemetry())
    source.open()
    first = source.read()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    opened = os.open("/dev/null", os.O_RDONLY)
    second = source.read()
    os.close(opened)
    stop.set()
    thread.join()
    for row in (rows.DESCRIPTORS, rows.THREADS):
        assert values(second, row)[0] == values(first, row)[0] + 1


def test_the_start_does_not_move_and_series_stay():
    source = Agent(Telemetry())
    source.open()
    first = source.read()
    time.sleep(0.03)
    source.open()
    second = source.read()
    assert abs(values(first, rows.START_TIME)[0] - values(second, rows.START_TIME)[0]) <= 0.011
    for row, column in first.columns.items():
        assert second.columns[row].series is column.series


def test_what_parts_of_the_agent_counted_is_in_it():
    telemetry = Telemetry()
    telemetry.add(rows.HTTP_REJECTED, 3, {rows.ERROR_TYPE: "limit"})
    telemetry.record(rows.SOURCE_DURATION, 0.5, {rows.SOURCE: "x"})
    reading = Agent(telemetry).read()
    assert values(reading, rows.HTTP_REJECTED) == [3]
    assert [each.value for each in reading.measurements] == [0.5]


def test_without_a_descriptor_left_it_says_so():
    """In a child that has used up its limit."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing"
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
            Agent(Telemetry()).read()
        except Unavailable as error:
            said = f"{error.reason.name} {error.what}"
        finally:
            os.write(send, said.encode())
            os._exit(0)
    os.close(send)
    with open(receive) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said == "UNREADABLE /proc/self/stat"
