"""The kernel that install.sh put into the cache, and the initial file system to start it with."""

from __future__ import annotations

import lzma
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Self

_INIT = Path(__file__).with_name("guest") / "init.sh"
_NEEDED = ("virtio_pci", "9p", "9pnet_virtio", "overlay")  # to mount what everything else is read from


def cache() -> Path:
    """The folder install.sh fills."""
    given = os.environ.get("MACHINE_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-hostmetrics-machine"


class Kernel:
    """An unpacked Debian kernel package at *tree*, which is named after the release."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.release = tree.name
        self.image = tree / "boot" / f"vmlinuz-{self.release}"
        self.fakeib = tree / "fakeib" / "fakeib.ko"
        self._modules = tree / "lib" / "modules" / self.release

    @classmethod
    def current(cls) -> Self:
        """The newest one in the cache."""
        return cls((cache() / "current").resolve())

    def missing(self) -> str:
        """What a machine cannot run without here; empty if nothing is missing."""
        if os.geteuid() != 0:
            return "root, who alone may read all of the host's files"
        programs = ("qemu-system-x86_64", "busybox")
        absent = [name for name in programs if shutil.which(name) is None]
        absent += [str(path) for path in (self.image, self.fakeib) if not path.exists()]
        return f"{', '.join(absent)}: run tests/machine/install.sh" if absent else ""

    def initial_files(self) -> bytes:
        """A cpio archive: busybox, the modules that mount the host's files, and guest/init.sh."""
        modules = {path.name.removesuffix(".xz"): _module(path) for path in self._insertion_order(_NEEDED)}
        return _cpio({
            "init": (0o100755, _INIT.read_bytes()),
            "bin": (0o40755, b""),
            "bin/busybox": (0o100755, Path(shutil.which("busybox") or "").read_bytes()),
            "bin/sh": (0o120777, b"busybox"),
            **dict.fromkeys(("dev", "proc", "modules"), (0o40755, b"")),
            "order": (0o100644, "\n".join(modules).encode()),
            "kernel": (0o100644, os.fsencode(self.tree)),
            **{f"modules/{name}": (0o100644, content) for name, content in modules.items()},
        })  # fmt: skip

    def _insertion_order(self, names: Iterable[str]) -> list[Path]:
        """Files of these modules and of what they depend on, dependencies first. One built in has none."""
        needs = {_name(path): (path, after) for path, after in self._dependencies()}
        order: dict[Path, None] = {}
        for name in names:
            if name in needs:
                path, after = needs[name]
                order.update(dict.fromkeys([*reversed(after), path]))  # modules.dep has the whole closure, the nearest first
        return list(order)

    def _dependencies(self) -> Iterator[tuple[Path, list[Path]]]:
        for line in (self._modules / "modules.dep").read_text(encoding="ascii").splitlines():
            path, _, after = line.partition(":")
            yield self._modules / path, [self._modules / each for each in after.split()]


def _name(path: Path) -> str:
    return path.name.split(".ko")[0]


def _module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def _cpio(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The "newc" form, as the kernel's Documentation/driver-api/early-userspace/buffer-format.rst has it: path -> (mode, content)."""
    archive = bytearray()
    for number, (path, (mode, content)) in enumerate((*files.items(), ("TRAILER!!!", (0, b"")))):
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        for part in (b"070701" + b"".join(b"%08x" % field for field in fields) + name, content):
            archive += part
            archive += bytes(-len(archive) % 4)
    return bytes(archive)
