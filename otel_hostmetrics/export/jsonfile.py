"""A batch as one JSON document, and the periodic files of them."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from otel_hostmetrics.catalogue.model import Attributes, Scope, Series
from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.model import Batch, Column, Distribution, Family, Reading, Status
from otel_hostmetrics.settings import Snapshots
from otel_hostmetrics.store import Store

_log = logging.getLogger(__name__)

_LATEST = "latest.json"
_PREFIX = "snapshot_"
_PARTIAL = re.compile(r"\.(latest|snapshot_\d{8}T\d{6}Z)\.json\.\d{1,10}", re.ASCII)
_ABANDONED = 60.0  # s: whole files take milliseconds to write; by its age, as its writer is not known


def document(batch: Batch, resource: Attributes) -> bytes:
    """Everything one cycle knows: sources with their state, problems and facts, and every point.

    Non-finite numbers become null; times are Unix nanoseconds.
    """
    snapshot = batch.snapshot
    content = {
        "version": 1,
        "number": snapshot.number,
        "time": _iso(snapshot.time_ns),
        "time_unix_nano": snapshot.time_ns,
        "resource": resource,
        "sources": {name: _source(status, snapshot.readings[name]) for name, status in snapshot.statuses.items()},
        "metrics": [_family(family) for family in batch.families],
    }
    try:
        return msgspec.json.encode(content, enc_hook=str)
    except UnicodeEncodeError:  # lone surrogates, from names that were not UTF-8: rare, so looked for only now
        return msgspec.json.encode(_valid(content), enc_hook=str)


def _valid(value: Any) -> Any:
    """The same with ``?`` for what UTF-8 cannot express, as in OTLP and on the Prometheus page."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_valid(key): _valid(each) for key, each in value.items()}
    return [_valid(each) for each in value] if isinstance(value, (list, tuple)) else value


def _iso(time_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ns // 10**9)) + f".{time_ns // 10**6 % 1000:03d}Z"


def _source(status: Status, reading: Reading) -> Mapping[str, object]:
    return {
        "state": status.state.value,
        "reason": status.reason.value if status.reason else None,
        "detail": status.detail,
        "needs": status.needs,
        "duration_ns": status.took_ns,
        "time_unix_nano": reading.time_ns or None,
        "dropped_series": reading.dropped,
        "problems": [_problem(problem) for problem in reading.problems],
        "facts": reading.facts,
    }


def _problem(problem: Unavailable) -> Mapping[str, str]:
    return {"reason": problem.reason.value, "what": problem.what, "detail": problem.detail, "needs": problem.needs}


def _family(family: Family) -> Mapping[str, object]:
    metric = family.metric
    points = [point for _, column in family.columns for point in _points(column)]
    known = {"name": metric.name, "kind": metric.kind.value, "unit": metric.unit, "description": metric.description, "points": points}
    return known if metric.scope is None else {"scope": _scope(metric.scope), **known}


def _scope(scope: Scope) -> Mapping[str, object]:
    """Of a third party's metric. As in OTLP, what is empty is left out."""
    found = {"name": scope.name, "version": scope.version, "schema_url": scope.schema_url, "attributes": dict(scope.attributes)}
    return {key: value for key, value in found.items() if value}


def _points(column: Column) -> list[Mapping[str, object]]:
    return [_point(series, value) for series, value in zip(column.series, column.values, strict=True)]


def _point(series: Series, value: float | Distribution) -> Mapping[str, object]:
    point: dict[str, object] = {"attributes": series.attributes}
    if isinstance(value, Distribution):
        point |= {"count": value.total, **value._asdict(), "boundaries": series.metric.boundaries}
    else:
        point["value"] = value
    if series.start_ns:
        point["start_time_unix_nano"] = series.start_ns
    if series.resource:
        point["resource"] = series.resource
    return point


class Files:
    """Writes the newest batch to *directory* every interval, in a thread of its own: a slow disk costs files, not cycles."""

    def __init__(self, settings: Snapshots, store: Store, resource: Attributes) -> None:
        self._settings = settings
        self._directory = Path(settings.directory)
        self._store = store
        self._resource = resource
        self._stop = threading.Event()
        self._failed = ""
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)

    def start(self) -> None:
        """Raises Unavailable if the folder cannot be made or written to."""
        what = f"writing to {self._directory} (snapshots.directory)"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if not os.access(self._directory, os.W_OK | os.X_OK):
                raise PermissionError(13, "not writable")
        except FileExistsError:  # mkdir(2)'s word for a file in its place
            raise Unavailable(Reason.ABSENT, what, "Not a directory") from None
        except OSError as error:
            raise unavailable(error, what) from None
        self._clean()
        self._thread.start()

    def _clean(self) -> None:
        """Remove what an agent of this user that was killed while it wrote has left."""
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._directory):
                if _PARTIAL.fullmatch(entry.name) and _abandoned(entry.stat(follow_symlinks=False)):
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            batch = self._store.newer_than(number, 0.5)
            if batch is None:
                continue
            number = batch.snapshot.number
            self._try(batch)
            self._stop.wait(self._settings.interval)

    def _try(self, batch: Batch) -> None:
        try:
            self.write(batch)
            failed = ""
        except OSError as error:
            failed = f"{self._directory}: {error.strerror or error}"  # the same text each time: said once
        if failed != self._failed:
            self._failed = failed
            _log.log(logging.WARNING if failed else logging.INFO, "snapshots: %s", failed or "written again")

    def write(self, batch: Batch) -> Path:
        """One file and latest.json, both whole or not at all: a reader never sees half of one. Raises OSError."""
        blob = document(batch, self._resource)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(batch.snapshot.time_ns // 10**9))
        path = self._directory / f"{_PREFIX}{stamp}.json"
        for target in (path, self._directory / _LATEST):
            self._replace(target, blob)
        self._forget()
        return path

    def _replace(self, target: Path, blob: bytes) -> None:
        # A name nobody knows beforehand, and no file or link that is there already: the folder may be one that all write to.
        partial = self._directory / f".{target.name}.{int.from_bytes(os.urandom(4))}"
        # Readable by the agent's user and group: the files name processes and containers of everybody.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            with open(descriptor, "wb") as file:
                file.write(blob)
            partial.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise

    def _forget(self) -> None:
        files = sorted(self._directory.glob(f"{_PREFIX}*.json"))
        for old in files[: -self._settings.keep]:
            with contextlib.suppress(OSError):
                old.unlink()


def _abandoned(file: os.stat_result) -> bool:
    return stat.S_ISREG(file.st_mode) and file.st_uid == os.geteuid() and time.time() - file.st_mtime > _ABANDONED
