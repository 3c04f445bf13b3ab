"""The process the command line replaces itself by: ``python -m otel_hostmetrics.lean --settings-fd N -- FRONT ARGUMENTS``.

Neither typer nor a YAML parser is ever loaded here, and nothing else that a running agent does not need.
"""

from __future__ import annotations

import contextlib
import os
import resource as limits
import sys
import threading

_LAST = 0.2  # s


def _raise_descriptor_limit() -> None:
    """One descriptor per counter file on a large host is more than the usual soft limit of 1024."""
    _, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        limits.setrlimit(limits.RLIMIT_NOFILE, (hard, hard))


def _name_process() -> None:
    """What ps and top show. argv[0] cannot be changed instead: Python finds its environment by it."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write("otel-hostmetrics"[:15])


def _load() -> None:
    """Import the agent without typing_extensions: msgspec prefers it to typing where it is installed, 2 MB resident.

    Whoever really needs it, such as the SDK, can import it afterwards.
    """
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] # as documented for import: raises ImportError
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]


def main(arguments: list[str]) -> int:
    """Exit code of the agent; 64 (EX_USAGE) for whoever starts it by hand."""
    if len(arguments) < 2 or arguments[0] != "--settings-fd" or not arguments[1].isdigit():
        print("otel-hostmetrics: the agent is started by the command otel-hostmetrics", file=sys.stderr)  # noqa: T201
        return 64
    _load()
    from otel_hostmetrics import agent, logs, settings

    with open(int(arguments[1]), "rb") as file:
        known = settings.decode(file.read())
    logs.setup(known.log)
    _name_process()
    _raise_descriptor_limit()
    return agent.Agent(known, arguments[3:] if arguments[2:3] == ["--"] else []).run()


def bound_exit(status: int) -> None:
    """What plugins make Python wait for at its end, tasks of their executors and atexit, gets a moment."""
    if "otel_hostmetrics.plugins" in sys.modules:
        last = threading.Timer(_LAST, os._exit, (status,))
        last.daemon = True
        last.start()


if __name__ == "__main__":
    ended = 1
    try:
        ended = main(sys.argv[1:])
    finally:
        bound_exit(ended)
    sys.exit(ended)
