"""One BPF object of every type that the running kernel accepts."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel import bpf, btf
from otel_hostmetrics.kernel.hostfs import HostFS
from otel_hostmetrics.kernel.mountinfo import mounts
from tests.live.bpfload import Loader

LONG_NAME = "zoo_program_with_a_long_function_name_of_which_the_kernel_keeps_fifteen_bytes"
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
PROBED = 64  # offset of uprobes in a file that nobody runs
_LOOPBACK = 1  # interface index


def populate(loader: Loader, tracefs: str = "/sys/kernel/tracing") -> dict[str, int]:
    """Create what the kernel accepts: species -> id of its link. What it refuses is in ``loader.refused``."""
    created: dict[str, int] = {}
    for name, create in _species(tracefs).items():
        before = len(loader.ids["link"])
        try:
            create(loader)
        except (OSError, KeyError, Unavailable) as error:
            loader.refused[name] = f"{type(error).__name__}: {error}"
        else:
            created.update((name, number) for number in loader.ids["link"][before:])
    return created


def cgroup2() -> str:
    """A cgroup2 directory. Raises Unavailable."""
    places = mounts(HostFS(), "cgroup2")
    if not places:
        raise FileNotFoundError("cgroup2 is not mounted")
    return places[0].path


def _species(tracefs: str) -> dict[str, Callable[[Loader], object]]:
    events = Path(tracefs, "events/sched/sched_switch/id")
    return {
        "cgroup": _cgroup,
        "raw_tracepoint": lambda at: at.raw_tracepoint(at.program("raw_tracepoint", name="zoo_raw_tp"), "sys_enter"),
        "xdp": lambda at: at.link(at.program("xdp", 2, "zoo_xdp", attach="xdp"), _LOOPBACK, "xdp", flags=2),  # XDP_FLAGS_SKB_MODE
        "tcx": lambda at: at.link(at.program("sched_cls", -1, "zoo_tcx", attach="tcx_ingress"), _LOOPBACK, "tcx_ingress"),
        "iter_task": lambda at: _iterator(at, "task", struct.pack("=III", 0, os.getpid(), 0)),
        "iter_map": lambda at: _iterator(at, "bpf_map_elem", struct.pack("=I", at.map("hash", name="zoo_iter_map"))),
        "netns": _netns,
        "netfilter": _netfilter,
        "perf_software": lambda at: _perf(at, "perf_event", 1, 0, 1_000_000),  # PERF_TYPE_SOFTWARE, CPU clock
        "perf_tracepoint": lambda at: _perf(at, "tracepoint", 2, int(events.read_text())),  # PERF_TYPE_TRACEPOINT
        "perf_uprobe": lambda at: _perf(at, "kprobe", _perf_type("uprobe"), target=_executable(at), offset=PROBED),
        "perf_kprobe": lambda at: _perf(at, "kprobe", _perf_type("kprobe"), target="do_nanosleep"),
        "uprobe_multi": _uprobe_multi,
        "fentry": lambda at: at.raw_tracepoint(_traced(at, "tracing", "trace_fentry", "bpf_fentry_test1")),
        "lsm": lambda at: at.raw_tracepoint(_traced(at, "lsm", "lsm_mac", "bpf_lsm_file_open")),
        "long_name": lambda at: at.program(name=LONG_NAME, btf_fd=at.btf(LONG_NAME)),
    }


_kept: list[ctypes.Array[ctypes.c_char]] = []  # buffers that attributes point to


def _pointer(content: bytes) -> int:
    buffer = ctypes.create_string_buffer(content, len(content))
    _kept.append(buffer)
    return bpf.address(buffer)


def _iterator(at: Loader, target: str, limit: bytes) -> None:
    """*limit* is union bpf_iter_link_info: what the walk is restricted to."""
    at.link(at.iterator(target, f"zoo_{target}"), 0, "trace_iter", struct.pack("=QI", _pointer(limit), len(limit)))


def _cgroup(at: Loader) -> None:
    fd = at.keep(os.open(cgroup2(), os.O_RDONLY | os.O_CLOEXEC))
    at.link(at.program("cgroup_skb", 1, "zoo_cgroup_skb", attach="cgroup_inet_ingress"), fd, "cgroup_inet_ingress")


def _netns(at: Loader) -> None:
    fd = at.keep(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    at.link(at.program("sk_lookup", 1, "zoo_sk_lookup", attach="sk_lookup"), fd, "sk_lookup")


def _netfilter(at: Loader) -> None:
    program = at.program("netfilter", 1, "zoo_netfilter", attach="netfilter")
    at.link(program, 0, "netfilter", struct.pack("=IIiI", 2, 0, -128, 0))  # NFPROTO_IPV4, NF_INET_PRE_ROUTING, priority, flags


def _traced(at: Loader, kind: str, attach: str, function: str) -> int:
    return at.program(kind, name=f"zoo_{attach}", attach=attach, target=btf.scan((), (function,)).functions[function])


def _executable(at: Loader) -> str:
    """A file of our own to probe, which nobody runs."""
    folder = tempfile.mkdtemp(prefix="zoo")
    at.at_close(shutil.rmtree, folder, ignore_errors=True)
    return shutil.copy("/bin/true", folder)


def _perf_type(probe: str) -> int:
    return int(Path(f"/sys/bus/event_source/devices/{probe}/type").read_text())


def _perf(at: Loader, program: str, kind: int, config: int = 0, period: int = 1, *, target: str = "", offset: int = 0) -> None:
    """perf_event_open(2) and a program's link to it. For probes *target* is a path or a symbol."""
    attr = ctypes.create_string_buffer(112)  # PERF_ATTR_SIZE_VER5
    struct.pack_into("=IIQQ", attr, 0, kind, len(attr), config, period)
    struct.pack_into("=Q", attr, 40, 1)  # disabled
    if target:
        struct.pack_into("=QQ", attr, 56, _pointer(target.encode() + b"\0"), offset)
    pid, cpu = (0, -1) if kind == 1 else (-1, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(_PERF_EVENT_OPEN[platform.machine()], attr, pid, cpu, -1, 8)  # PERF_FLAG_FD_CLOEXEC
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"perf_event_open: {os.strerror(ctypes.get_errno())}")
    at.link(at.program(program, name=f"zoo_perf_{kind}"), at.keep(fd), "perf_event")


def _uprobe_multi(at: Loader) -> None:
    """u64 path, offsets, ref_ctr_offsets, cookies; u32 count, flags, pid."""
    path, offsets = _pointer(_executable(at).encode() + b"\0"), _pointer(struct.pack("=QQ", PROBED, PROBED + 8))
    program = at.program("kprobe", name="zoo_uprobes", attach="trace_uprobe_multi")
    at.link(program, 0, "trace_uprobe_multi", struct.pack("=QQQQIII", path, offsets, 0, 0, 2, 0, 0))
