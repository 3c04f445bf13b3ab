"""A simulated InfiniBand fabric (Debian's ibsim-utils), with LIDs, for the programs that ask a fabric rather than a host.

    Hca1 port 1, 2 -- Switch1 -- Hca2 port 1

The programs see it when they are run with Fabric.environment: umad2sim takes the place of /dev/infiniband/umad*. There is no sysfs
tree of it that the agent could read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import types
from pathlib import Path
from typing import Self

_LIBRARY = Path("/usr/lib/x86_64-linux-gnu/umad2sim/libumad2sim.so")
_NET = """\
Switch 8 "Switch1"
[1] "Hca1"[1]
[2] "Hca1"[2]
[4] "Hca2"[1]

Hca 2 "Hca1"
[1] "Switch1"[1]
[2] "Switch1"[2]

Hca 2 "Hca2"
[1] "Switch1"[4]
"""
_PROGRAMS = ("ibsim", "opensm", "ibnetdiscover", "perfquery")


def missing() -> str:
    """What the fabric cannot be made without here; empty if nothing is missing."""
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    absent += [] if _LIBRARY.exists() else [str(_LIBRARY)]
    return f"{', '.join(absent)}: run tests/machine/install.sh" if absent else ""


class Fabric:
    """The fabric, with files of its own in *folder*. A subnet manager has been there once and given LIDs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The socket of ibsim, and what opensm keeps, would otherwise be shared with everybody on the host.
        self._socket = f"ibsim-{os.getpid()}"
        own = {"IBSIM_SOCKNAME": self._socket, "OSM_TMP_DIR": str(folder), "OSM_CACHE_DIR": str(folder)}
        self._outside = {**os.environ, **own}
        self.environment = {**self._outside, "LD_PRELOAD": str(_LIBRARY), "SIM_HOST": "Hca1"}

    def __enter__(self) -> Self:
        net = self._folder / "net"
        net.write_text(_NET, encoding="ascii")
        # Standard input is ibsim's console: at its end the simulator ends, too.
        with (self._folder / "ibsim.log").open("wb") as log:
            command = ("ibsim", "-s", str(net))
            self._simulator = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._outside)
        try:
            self._wait()
            self.run("opensm", "-o", "-f", str(self._folder / "opensm.log"))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self._end()

    def run(self, *command: str) -> str:
        """Standard output of a program on Hca1."""
        where = self._folder  # umad2sim makes a folder in the working directory
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True, env=self.environment, cwd=where).stdout

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while f"@{self._socket}:" not in Path("/proc/net/unix").read_text(encoding="utf-8", errors="replace"):
            if time.monotonic() > deadline or self._simulator.poll() is not None:
                raise TimeoutError(f"ibsim does not listen: {(self._folder / 'ibsim.log').read_text(encoding='utf-8')}")
            time.sleep(0.02)

    def _end(self) -> None:
        self._simulator.kill()
        self._simulator.communicate()
