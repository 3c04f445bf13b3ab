"""The front's last act: become the lean agent, in the same process.

typer, rich and PyYAML cost more resident memory than the agent itself needs, so they stay behind in execve(2). The
settings go over in a sealed memfd: secrets appear neither in the arguments nor in the environment, and nobody can
change them afterwards.

fcntl is otherwise for kernel/ only. Here it seals the memfd, and nothing of the kernel layer is of use to the front.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from otel_hostmetrics.settings import Settings, encode

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE  # Linux 3.17


def agent(settings: Settings, argv: Sequence[str]) -> NoReturn:
    """Replace this process by ``python -m otel_hostmetrics.lean --settings-fd N -- ARGV``.

    *argv* are the front's own arguments: for a reload, the agent runs
    ``python -m otel_hostmetrics --resolve-only ARGV`` and reads new settings from its standard output.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    command = [*interpreter(), "-m", "otel_hostmetrics.lean", "--settings-fd", str(sealed(encode(settings))), "--", *argv]
    os.execv(command[0], command)  # noqa: S606 - a shell is not wanted


def interpreter() -> list[str]:
    """Python, such that ``-m`` finds this package where the front found it.

    ``-m`` looks into the working directory first. An installed front has not, so neither may its agent:
    it may run as root in a directory that others write to.
    """
    return [sys.executable] if sys.path[:1] == [_working_directory()] else [sys.executable, "-P"]


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed
        return None


def sealed(content: bytes) -> int:
    """An inheritable descriptor of a memory file that holds *content*, at offset 0, and can no longer change."""
    descriptor = os.memfd_create("otel-hostmetrics-settings", os.MFD_ALLOW_SEALING)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor
