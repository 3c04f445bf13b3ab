"""Attributes of points that a process has, by the semantic conventions (v1.44, process)."""

from __future__ import annotations

from otel_hostmetrics.catalogue.model import AttributeValue

PID, CREATION_TIME, EXECUTABLE = "process.pid", "process.creation.time", "process.executable.name"


def process(pid: int, executable: str) -> dict[str, AttributeValue]:
    """*executable* is empty for a kernel thread and where it is not known."""
    return {PID: pid, EXECUTABLE: executable} if executable else {PID: pid}
