"""A virtual machine with a kernel of its own, on this machine's files: QEMU, without KVM, so that it runs in any container.

The guest sees the host's / (checkout and virtual environment included) at the same paths, and can change none of it.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.machine.kernel import Kernel

_CHECKOUT = Path(__file__).parents[2]
_MEMORY_MIB = 1536
_LINES = 40  # of console and output in an error message


class MachineError(Exception):
    """The machine did not come up, or its job failed: says how, with the end of its output and of the console."""


@dataclass(frozen=True)
class Finished:
    """A machine that has been switched off."""

    folder: Path  # what the job wrote to /mnt/out, and job.log, dmesg, console
    seconds: float


def run_chapters(kernel: Kernel, names: Sequence[str], folder: Path) -> Finished:
    """Let these chapters of tests/machine/guest gather, each into ``folder/NAME.json``. Raises MachineError."""
    (folder / "parameters.json").write_text(json.dumps({"fakeib": str(kernel.fakeib)}), encoding="utf-8")
    command = shlex.join([sys.executable, "-m", "tests.machine.guest", "/mnt/out", *names])
    return boot(kernel, f"cd {shlex.quote(str(_CHECKOUT))} && {command}", folder)


def boot(kernel: Kernel, job: str, folder: Path, limit: float = 180) -> Finished:
    """Run the shell script *job* as root in a machine that shares *folder* as /mnt/out. At most *limit* seconds.

    Raises MachineError.
    """
    for name in ("status", "job.log", "dmesg", "console"):
        (folder / name).unlink(missing_ok=True)  # of a run before
    (folder / "job.sh").write_text(job, encoding="utf-8")
    (folder / "initrd").write_bytes(kernel.initial_files())
    start = time.monotonic()
    try:
        qemu = subprocess.run(
            _command(kernel, folder), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        raise MachineError(_report(folder, f"the machine was not done after {limit:.0f} s")) from None
    if qemu.returncode:
        raise MachineError(_report(folder, f"qemu: {qemu.stderr.strip()}"))
    status = _text(folder / "status").strip()
    if status != "0":
        what = f"the job failed with status {status}" if status else "the machine stopped before its job was done"
        raise MachineError(_report(folder, what))
    return Finished(folder, time.monotonic() - start)


def _command(kernel: Kernel, folder: Path) -> Sequence[str | Path]:
    words = "console=ttyS0 quiet loglevel=4 panic=-1 nokaslr mitigations=off"  # mitigations cost time and protect nothing here
    return (
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-machine", "q35", "-smp", "2", "-m", str(_MEMORY_MIB),
        "-display", "none", "-nodefaults", "-no-reboot", "-serial", f"file:{folder / 'console'}",
        "-kernel", kernel.image, "-initrd", folder / "initrd", "-append", words,
        *_share("host", Path("/"), ",readonly=on"), *_share("out", folder, ""),
    )  # fmt: skip


def _share(tag: str, path: Path, options: str) -> tuple[str, ...]:
    backend = f"local,id={tag},path={path},security_model=none,multidevs=remap{options}"
    return "-fsdev", backend, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"


def _report(folder: Path, what: str) -> str:
    parts = [f"{name}:\n{_text(folder / name, _LINES)}" for name in ("console", "job.log")]
    return "\n".join([what, *parts])


def _text(path: Path, lines: int = 1) -> str:
    """The last *lines* of a file that may not exist."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
