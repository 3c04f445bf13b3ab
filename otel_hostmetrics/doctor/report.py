"""What doctor found, as a structure, as text, as JSON and as an exit status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from otel_hostmetrics.doctor.cures import ByHand, Cure, cures
from otel_hostmetrics.doctor.surroundings import Host, Process
from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.model import State, Status

NO_PERMISSION = 77  # EX_NOPERM of sysexits.h
_MOST_SHOWN = 10  # problems per source in the text; JSON has all
_MOST_MISSED = 3  # values named per denial
_HOW = ("systemd", "kubernetes", "podman", "by_hand")


@dataclass(frozen=True)
class Problem:
    """One value that could not be read."""

    reason: str
    what: str
    detail: str
    needs: str

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}{f': {self.detail}' if self.detail else ''}"


@dataclass(frozen=True)
class Finding:
    """How one source fared."""

    source: str
    state: str
    reason: str | None
    detail: str
    needs: str
    took_ms: float
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Denial:
    """Something the agent may not do, and who misses it."""

    needs: str
    sources: tuple[str, ...]
    missed: tuple[str, ...]  # the values; empty where a whole source is missed
    cures: tuple[Cure, ...]

    def __str__(self) -> str:
        shown, hidden = self.missed[:_MOST_MISSED], len(self.missed) - _MOST_MISSED
        what = ", ".join([*shown, *([f"{hidden} more"] if hidden > 0 else [])])
        return f"{', '.join(self.sources)} needs {', or '.join(map(str, self.cures))}{f', for {what}' if what else ''}"


@dataclass(frozen=True)
class Report:
    """Everything doctor says."""

    host: Host
    process: Process
    findings: tuple[Finding, ...]
    denials: tuple[Denial, ...]


def report(found: Mapping[str, tuple[Status, Sequence[Unavailable]]], host: Host, process: Process) -> Report:
    """Put together what the sources said, by source name."""
    findings = tuple(_finding(name, status, problems) for name, (status, problems) in found.items())
    return Report(host, process, findings, tuple(_denials(findings, process)))


def exit_status(found: Report, strict: bool) -> int:
    """With *strict*, 77 if something is denied and 1 if a source fails for another reason. Else 0."""
    if not strict:
        return 0
    if any(Reason.DENIED.value in (finding.reason, *(problem.reason for problem in finding.problems)) for finding in found.findings):
        return NO_PERMISSION
    return int(any(finding.state in (State.FAILED.value, State.LATE.value) for finding in found.findings))


def as_json(found: Report) -> str:
    """One object: host, process, findings, denials."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode("utf-8") + "\n"


def text(found: Report) -> str:
    """For a terminal."""
    lines = [f"host     {found.host}", f"process  {found.process}", ""]
    wide = max(len("process"), *(len(finding.source) for finding in found.findings), 0)
    for finding in found.findings:
        lines += _finding_lines(finding, wide)
    for denial in found.denials:
        lines += _denial_lines(denial, found.process)
    return "\n".join(lines) + "\n"


def _finding(name: str, status: Status, problems: Sequence[Unavailable]) -> Finding:
    told = tuple(Problem(problem.reason.value, problem.what, problem.detail, problem.needs) for problem in problems)
    reason = status.reason.value if status.reason else None
    return Finding(name, status.state.value, reason, status.detail, status.needs, round(status.took_ns / 1e6, 3), told)


def _denials(findings: Sequence[Finding], process: Process) -> Iterator[Denial]:
    """Each need once, however many values miss it."""
    missed: dict[str, dict[tuple[str, str], None]] = {}
    for finding in findings:
        for needs, what in ((finding.needs, ""), *((problem.needs, problem.what) for problem in finding.problems)):
            if needs:
                missed.setdefault(needs, {})[finding.source, what] = None
    for needs, values in missed.items():
        sources = dict.fromkeys(source for source, _ in values)
        named = dict.fromkeys(what for _, what in values if what)
        yield Denial(needs, tuple(sources), tuple(named), cures(needs, process.capabilities, _by_hand(process)))


def _by_hand(process: Process) -> ByHand:
    """Whoever runs this can run it, wherever it is installed. Root becomes nobody."""
    return ByHand(process.command, process.uid, process.gid) if process.uid else ByHand(process.command)


def _finding_lines(finding: Finding, wide: int) -> Iterator[str]:
    problems = [*dict.fromkeys(map(str, finding.problems))]  # two readers may miss the same file
    detail = "" if finding.detail in problems else finding.detail
    said = [part for part in (detail, *problems[:_MOST_SHOWN]) if part] or ([finding.reason] if finding.reason else [])
    hidden = len(problems) - _MOST_SHOWN
    if hidden > 0:
        said.append(f"and {hidden} more, see --json")
    yield f"{finding.source:<{wide}}  {finding.state:<8} {said[0] if said else ''}".rstrip()
    yield from (f"{'':<{wide}}  {'':<8} {line}" for line in said[1:])


def _denial_lines(denial: Denial, process: Process) -> Iterator[str]:
    yield ""
    yield str(denial)
    if process.initial_user_namespace is False:
        yield "  this process is in a user namespace, whose capabilities do not count for the host: start it outside"
    for cure in denial.cures:
        yield f"  {cure}:"
        if cure.held:
            yield "    held already: a seccomp filter, a security module or kernel lockdown refuses, or a namespace is in between"
            continue
        for how in _HOW:
            for number, line in enumerate(getattr(cure, how)):
                yield f"    {how.replace('_', ' ') if number == 0 else '':<11} {line}"
