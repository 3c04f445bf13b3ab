"""A host in a directory: cgroups, /proc/stat and processes, moved by tests as a kernel would."""

from __future__ import annotations

import shutil
from pathlib import Path

from otel_hostmetrics.kernel.hostfs import HostFS

TICK_NS = 10_000_000


class Machine:
    """Two processors. *version* is that of cgroups."""

    def __init__(self, root: Path, version: int = 2) -> None:
        self.root = root
        self.version = version
        self.cgroups = root / "sys/fs/cgroup" / ("" if version == 2 else "cpuacct")
        self.cgroups.mkdir(parents=True)
        (root / "proc").mkdir(exist_ok=True)
        self._ns: dict[str, int] = {}
        self.busy_ns = self.total_ns = 0
        if version == 2:
            (self.cgroups / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        else:
            (self.cgroups / "cpuacct.usage").write_text("0\n")
        self.run("", 0, 0)

    @property
    def fs(self) -> HostFS:
        return HostFS(str(self.root))

    def make(self, path: str) -> None:
        """A cgroup, with those around it."""
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts) + 1):
            each = "/" + "/".join(parts[:depth])
            if each not in self._ns:
                (self.cgroups / each[1:]).mkdir()
                self._ns[each] = 0
                self._show(each)

    def remove(self, path: str) -> None:
        """With all below it; what they used stays in the numbers of those around them.

        Emptied first: a removed file of the kernel's cannot be read through descriptors either.
        """
        for file in (self.cgroups / path[1:]).rglob("*"):
            if file.is_file():
                file.write_text("")
        shutil.rmtree(self.cgroups / path[1:])
        self._ns = {each: ns for each, ns in self._ns.items() if each != path and not each.startswith(path + "/")}

    def paths(self) -> list[str]:
        return sorted(self._ns)

    def run(self, path: str, ns: int, wall_ns: int = 0) -> None:
        """*ns* of CPU time in a cgroup ("" is the root); *wall_ns* pass on both processors."""
        self.busy_ns += ns
        self.total_ns += 2 * wall_ns
        while path:
            self._ns[path] += ns
            self._show(path)
            path = path.rpartition("/")[0]
        busy, idle = self.busy_ns // TICK_NS, max(self.total_ns - self.busy_ns, 0) // TICK_NS
        (self.root / "proc/stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 2 3\nintr 5\n")

    def process(self, pid: int, path: str, ticks: int = 0, start: int = 100, executable: str = "") -> None:
        """Its name is that of its *executable*."""
        directory = self.root / f"proc/{pid}"
        directory.mkdir(exist_ok=True)
        line = f"0::{path}\n" if self.version == 2 else f"3:cpuacct:{path}\n0::/\n"
        (directory / "cgroup").write_text(line)
        fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 6, str(start), *["0"] * 30]
        (directory / "stat").write_text(f"{pid} (a) b{executable}) {' '.join(fields)}\n")

        (directory / "exe").unlink(missing_ok=True)
        if executable:
            (directory / "exe").symlink_to(f"/usr/bin/{executable}")

    def _show(self, path: str) -> None:
        ns = self._ns[path]
        if self.version == 2:
            text = f"usage_usec {ns // 1000}\nuser_usec {ns // 1000}\nsystem_usec 0\nnr_periods 0\n"
            (self.cgroups / path[1:] / "cpu.stat").write_text(text)
        else:
            (self.cgroups / path[1:] / "cpuacct.usage").write_text(f"{ns}\n")
