"""JSON documents, and the files of them on disks that are slow, full or closed."""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import signal
import stat
import threading
import time
from pathlib import Path

import msgspec
import pytest

from otel_hostmetrics.catalogue import agent, bpf
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.export.jsonfile import Files, document
from otel_hostmetrics.model import Batch, Distribution, Family, Reading, Snapshot, State, Status
from otel_hostmetrics.settings import Seconds, Snapshots
from otel_hostmetrics.store import Store
from tests.export import everything
from tests.kernel.as_nobody import as_nobody

RESOURCE = {"service.name": "test"}


def batch(number: int = 1, time_ns: int = everything.TIME, points: int = 1, name: str = "p") -> Batch:
    problem = Unavailable(Reason.DENIED, "a file", "Permission denied", "CAP_X")
    reading = Reading(problems=[problem], facts={"engine": "ids"}, time_ns=time_ns, dropped=3)
    status = Status(State.PARTIAL, Reason.DENIED, "a file: denied", "CAP_X", 1000)
    column = everything.with_value(bpf.PROGRAM_MEMORY, **{f"{name}{each}": each for each in range(points)})
    snapshot = Snapshot(number, time_ns, number, {"bpf": reading}, {"bpf": status})
    return Batch(snapshot, (Family(bpf.PROGRAM_MEMORY, ((time_ns, column),)),))


def files(directory: Path, store: Store | None = None, keep: int = 1000) -> Files:
    return Files(Snapshots(directory=str(directory), interval=Seconds(0.05), keep=keep), store or Store(), RESOURCE)


def test_a_document_holds_everything():
    found = json.loads(document(batch(), RESOURCE))
    assert found["number"] == 1
    assert found["time"] == "2027-01-15T08:00:00.000Z"
    assert found["time_unix_nano"] == everything.TIME
    assert found["resource"] == RESOURCE
    assert found["sources"]["bpf"] == {
        "state": "partial",
        "reason": "denied",
        "detail": "a file: denied",
        "needs": "CAP_X",
        "duration_ns": 1000,
        "time_unix_nano": everything.TIME,
        "dropped_series": 3,
        "problems": [{"reason": "denied", "what": "a file", "detail": "Permission denied", "needs": "CAP_X"}],
        "facts": {"engine": "ids"},
    }
    (metric,) = found["metrics"]
    assert (metric["name"], metric["kind"], metric["unit"]) == ("bpf.program.memory.usage", "updowncounter", "By")
    assert metric["points"] == [
        {
            "attributes": {"bpf.program.id": "p0", "bpf.program.name": "x", "bpf.program.type": "x"},
            "value": 0,
            "start_time_unix_nano": everything.START,
        }
    ]


def test_a_histogram_has_its_buckets():
    distribution = Distribution((1, 2, *[0] * (len(agent.SOURCE_DURATION.boundaries) - 1)), 0.5, 0.1, 0.4)
    column = everything.with_value(agent.SOURCE_DURATION, bpf=distribution)
    (metric,) = json.loads(document(msgspec.structs.replace(batch(), families=(Family(agent.SOURCE_DURATION, ((1, column),)),)), {}))[
        "metrics"
    ]
    (point,) = metric["points"]
    assert (point["count"], point["sum"], point["min"], point["max"]) == (3, 0.5, 0.1, 0.4)
    assert point["counts"] == list(distribution.counts)
    assert point["boundaries"] == list(agent.SOURCE_DURATION.boundaries)


def test_whatever_the_values_and_names_are_it_is_valid_json():
    values = {"nan": math.nan, "inf": math.inf, "large": 2**63, "larger": 2**70, "true": True, "\udcff": 1, "\x00\n": 2}
    column = everything.with_value(bpf.PROGRAM_MEMORY, **values)
    snapshot = Snapshot(1, 1, 1, {"bpf": Reading(facts={"path": ["/\udc80"], "reason": Reason.DENIED})}, {"bpf": Status(State.OK)})
    found = json.loads(document(Batch(snapshot, (Family(bpf.PROGRAM_MEMORY, ((1, column),)),)), {"host.name": "\udcaa"}))
    points = {point["attributes"]["bpf.program.id"]: point["value"] for point in found["metrics"][0]["points"]}
    assert points == {"nan": None, "inf": None, "large": 2**63, "larger": 2**70, "true": True, "?": 1, "\x00\n": 2}
    assert found["sources"]["bpf"]["facts"]["path"] == ["/?"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    """One that reads latest.json all the time while it is replaced by documents of very different sizes."""
    writer = files(tmp_path)
    writer.write(batch())
    stop, seen, torn = threading.Event(), set(), []

    def read() -> None:
        while not stop.is_set():
            for name in os.listdir(tmp_path):
                if name.endswith(".json") and not name.startswith("."):
                    try:
                        seen.add(json.loads((tmp_path / name).read_bytes())["number"])
                    except ValueError as error:
                        torn.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        deadline = time.monotonic() + 1
        number = 1
        while time.monotonic() < deadline:
            number += 1
            writer.write(batch(number, points=number % 7 * 300))
    finally:
        stop.set()
        thread.join()
    assert not torn
    assert len(seen) > 10


def test_only_so_many_files_are_kept_and_nothing_else_is_touched(tmp_path):
    (tmp_path / "mine.json").write_text("x")
    writer = files(tmp_path, keep=3)
    for number in range(6):
        writer.write(batch(number, everything.TIME + number * 10**9))
    names = sorted(os.listdir(tmp_path))
    assert names == ["latest.json", "mine.json", *(f"snapshot_20270115T08000{second}Z.json" for second in (3, 4, 5))]
    assert json.loads((tmp_path / "latest.json").read_bytes())["number"] == 5


def test_what_a_killed_agent_left_is_removed_and_nothing_else(tmp_path):
    left = tmp_path / ".snapshot_20261121T010203Z.json.4711", tmp_path / ".latest.json.4711"
    others = [tmp_path / name for name in (".snapshot_1.json.4711", ".latest.json", "latest.json.4711", ".latest.json.4711.bak")]
    link, now = tmp_path / ".latest.json.12", tmp_path / ".latest.json.13"
    for path in (*left, *others, now):
        path.write_bytes(b"{")
        os.utime(path, (1, 1))
    link.symlink_to(others[0])
    os.utime(link, (1, 1), follow_symlinks=False)
    now.touch()  # somebody writes it at this moment
    files = Files(Snapshots(directory=str(tmp_path)), Store(), {})
    files.start()
    files.close()
    assert set(tmp_path.iterdir()) == {*others, link, now}


def test_a_link_that_somebody_laid_leads_nowhere(tmp_path):
    """In a folder that all may write to, such as /tmp: at the names that a pid tells beforehand, and at those of whole files."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    names = ("latest.json", "snapshot_20270115T080000Z.json")
    for name in (*names, *(f".{name}.{os.getpid()}" for name in names)):
        (out / name).symlink_to(victim)
    files(out).write(batch())
    assert victim.read_text() == "precious"
    assert [(out / name).is_symlink() for name in names] == [False, False]


def test_what_an_agent_left_at_this_moment_is_in_nobodys_way(tmp_path):
    """In a container the agent after it has the same pid; the partial file is not old enough to be removed."""
    (tmp_path / f".latest.json.{os.getpid()}").write_bytes(b"{")
    writer = files(tmp_path)
    writer.start()
    writer.close()
    writer.write(batch(7))
    assert _latest(tmp_path) == 7


def test_others_cannot_read_them(tmp_path):
    """They name everybody's processes and containers."""
    before = os.umask(0)
    try:
        path = files(tmp_path).write(batch())
    finally:
        os.umask(before)
    for each in (path, tmp_path / "latest.json"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o640


def test_the_thread_writes_the_newest_batch_at_its_own_pace_and_ends(tmp_path):
    store = Store()
    writer = files(tmp_path / "made" / "for it", store)
    writer.start()
    for number in range(1, 41):
        store.publish(batch(number))
        time.sleep(0.005)
    deadline = time.monotonic() + 5
    while _latest(tmp_path / "made" / "for it") != 40 and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.close()
    assert _latest(tmp_path / "made" / "for it") == 40
    assert not any(thread.name == "snapshots" for thread in threading.enumerate())


def _latest(directory: Path) -> int:
    try:
        return int(json.loads((directory / "latest.json").read_bytes())["number"])
    except FileNotFoundError:
        return 0


def test_a_full_disk_is_said_once_and_leaves_no_half_file(tmp_path):
    """In a child whose files cannot grow beyond 8 KiB (RLIMIT_FSIZE); then its disk has room again."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            logging.basicConfig(filename=tmp_path / "log", format="%(message)s", level=logging.INFO, force=True)
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            store = Store()
            writer = files(tmp_path / "out", store)
            writer.start()
            store.publish(batch(1))
            time.sleep(0.15)
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
            for number in range(2, 6):
                store.publish(batch(number, everything.TIME + number * 10**9, points=200))
                time.sleep(0.1)
            (tmp_path / "during").write_text(" ".join(sorted(os.listdir(tmp_path / "out"))))
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            store.publish(batch(6, points=200))
            time.sleep(0.15)
            writer.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "during").read_text() == "latest.json snapshot_20270115T080000Z.json"
    assert (tmp_path / "log").read_text().splitlines() == [f"snapshots: {tmp_path}/out: File too large", "snapshots: written again"]
    assert _latest(tmp_path / "out") == 6


def test_a_folder_that_vanished_is_no_end_of_the_thread(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    store = Store()
    writer = files(tmp_path / "out", store)
    writer.start()
    (tmp_path / "out").rmdir()
    for number in range(1, 4):
        store.publish(batch(number))
        time.sleep(0.08)
    (tmp_path / "out").mkdir()
    store.publish(batch(9))
    time.sleep(0.15)
    writer.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"snapshots: {tmp_path}/out: No such file or directory",
        "snapshots: written again",
    ]
    assert _latest(tmp_path / "out") == 9


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes nobody")
@pytest.mark.parametrize("folder", ["closed", "closed/below"])
def test_a_folder_that_cannot_be_written_is_one_line_at_the_start(tmp_path, folder):
    (tmp_path / "closed").mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):  # pytest's own are for root only
        if parent != Path("/") and parent != Path("/tmp"):
            parent.chmod(0o755)

    def start() -> str:
        try:
            files(tmp_path / folder).start()
        except Unavailable as error:
            return str(error)
        return "started"

    said = as_nobody(start)
    path = tmp_path / folder
    assert said.startswith(f"writing to {path} (snapshots.directory): denied: ")
    assert "\n" not in said


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"/file \(snapshots\.directory\): absent: Not a directory$"):
        files(tmp_path / "file").start()
