"""The host, and what this process may do on it."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import psutil

# include/uapi/linux/capability.h, in the order of the bits
_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
    "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
    "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
_NAME = "otel-hostmetrics"
_SUDO = frozenset({"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"})  # secure_path of sudoers(5)
# include/linux/proc_ns.h, PROC_*_INIT_INO: the inode numbers of the namespaces the kernel booted with
_INITIAL = {"user": "user:[4026531837]", "pid": "pid:[4026531836]"}


@dataclass(frozen=True)
class Host:
    """The machine."""

    name: str
    kernel: str
    architecture: str
    cpus: int
    memory_bytes: int
    uptime_seconds: int

    def __str__(self) -> str:
        hours, minutes = divmod(self.uptime_seconds // 60, 60)
        return (
            f"{self.name}: Linux {self.kernel} {self.architecture}, {self.cpus} cpus, "
            f"{self.memory_bytes / 2**30:.1f} GiB memory, up {hours} h {minutes} min"
        )


@dataclass(frozen=True)
class Process:
    """The running process. A namespace is None where the kernel does not tell."""

    uid: int
    capabilities: tuple[str, ...]  # effective
    initial_user_namespace: bool | None
    initial_pid_namespace: bool | None
    gid: int = 65534
    command: str = _NAME  # what a shell starts it by

    def __str__(self) -> str:
        spaces = ((self.initial_user_namespace, "a user namespace"), (self.initial_pid_namespace, "a pid namespace of its own"))
        inside = " and ".join(name for initial, name in spaces if initial is False)
        return f"uid {self.uid}, {self._privilege()}{f', in {inside}' if inside else ''}"

    def _privilege(self) -> str:
        missing = [name for name in _CAPABILITIES if name not in self.capabilities]
        if not missing:
            return "all capabilities"
        return f"all capabilities but {' '.join(missing)}" if len(missing) < 8 else " ".join(self.capabilities) or "no capabilities"


def host() -> Host:
    """The machine this process runs on."""
    system = os.uname()
    uptime = max(0, int(time.time() - psutil.boot_time()))
    return Host(system.nodename, system.release, system.machine, os.cpu_count() or 1, psutil.virtual_memory().total, uptime)


def process() -> Process:
    """The running process, as /proc/self has it."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        status = parse_status(file.read())
    held = capabilities(int(status.get("CapEff", "0"), 16))
    return Process(os.geteuid(), held, _initial("user"), _initial("pid"), os.getegid(), command(sys.argv[0]))


def command(program: str) -> str:
    """*program*, argv[0] of this process, as it is to be typed after ``sudo``, whose PATH has no virtual environment."""
    directory, name = os.path.split(os.path.abspath(program))
    return shlex.quote(os.path.join(directory, name)) if name == _NAME and directory not in _SUDO else _NAME


def parse_status(text: str) -> Mapping[str, str]:
    """The fields of a /proc/<pid>/status."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def capabilities(mask: int) -> tuple[str, ...]:
    """The names of the bits of a capability set."""
    return tuple(name for bit, name in enumerate(_CAPABILITIES) if mask >> bit & 1)


def _initial(kind: str) -> bool | None:
    try:
        return os.readlink(f"/proc/self/ns/{kind}") == _INITIAL[kind]
    except OSError:
        return None
