"""BPF iterators (Documentation/bpf/bpf_iterators.rst): small programs of ours that the kernel runs once for each object.

Against walking ids with bpf(2) this needs CAP_BPF and CAP_PERFMON only, where every ``*_GET_NEXT_ID`` and
``*_GET_FD_BY_ID`` asks for CAP_SYS_ADMIN; takes 0.3 us instead of 5 per object (measured); and opens no object, so
nothing is kept alive by being looked at. The program and its link belong to this process and are not pinned: they
are gone when it is, however it ends. Each is an object of the kernel like any other and appears in what it lists.

Reading fields by offset needs the helper bpf_probe_read_kernel, which lockdown=confidentiality forbids. Before 5.11
programs are charged against RLIMIT_MEMLOCK, and a small limit shows as EPERM.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from types import TracebackType
from typing import Final, NamedTuple, Self

from otel_hostmetrics.errors import Reason, Unavailable, unavailable
from otel_hostmetrics.kernel import bpf
from otel_hostmetrics.kernel.btf import Types

NEEDS: Final = "CAP_BPF+CAP_PERFMON|CAP_SYS_ADMIN"

# The kernel collects records in a buffer of 8 pages and never splits the records of one object (kernel/bpf/bpf_iter.c):
# reading with room for a full buffer yields whole records.
_CHUNK: Final = max(8 * os.sysconf("SC_PAGESIZE"), 64 << 10)
_LIMIT: Final = 64 << 20  # bytes of one read: 2 million programs' counters, 160,000 programs in detail
_TRACING: Final = 26  # enum bpf_prog_type [5.5]
_TRACE_ITER: Final = 28  # enum bpf_attach_type [5.8]
_LICENSE: Final = b"Dual BSD/GPL\0"  # the helpers used are for GPL-compatible programs only
_PROG_LOAD: Final = struct.Struct("=IIQQIIQII16sIIIIQIIQIII")  # union bpf_attr up to attach_prog_fd
_LOG_BYTES: Final = 1 << 20
_RETRIES: Final = 1000  # EAGAIN after each million objects without a record


class OwnIds(NamedTuple):
    """Objects that exist because we look: ours to recognise, and to leave out."""

    programs: frozenset[int] = frozenset()
    maps: frozenset[int] = frozenset()
    links: frozenset[int] = frozenset()


def join(parts: Iterable[OwnIds]) -> OwnIds:
    programs, maps, links = zip(*parts, strict=True)
    return OwnIds(frozenset().union(*programs), frozenset().union(*maps), frozenset().union(*links))


class ReadBuffer:
    """Where all iterators of an engine read to, one after the other. It grows to what was needed, within the limit."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_CHUNK))

    def reserve(self, filled: int) -> memoryview:
        """The buffer with room for one more chunk behind *filled* bytes. Raises Unavailable(UNREADABLE) at the limit."""
        if len(self.view) - filled < _CHUNK:
            if filled > _LIMIT:
                raise Unavailable(Reason.UNREADABLE, "BPF iterator", f"more than {_LIMIT} bytes of records")
            larger = memoryview(bytearray(max(2 * len(self.view), filled + _CHUNK)))
            larger[:filled] = self.view[:filled]
            self.view = larger  # a view handed out before keeps the old one alive
        return self.view


class BpfIterator:
    """One loaded iterator program and its link. Not thread-safe."""

    def __init__(self, target: str, code: bytes, types: Types, buffer: ReadBuffer, name: str = "") -> None:
        """*target* is what to iterate: ``bpf_prog`` [5.9], ``bpf_map`` [5.8], ``bpf_link`` [5.19], ``task_file`` [5.8].

        Raises Unavailable: DENIED without the capabilities, UNSUPPORTED with the verifier's last words.
        """
        self.what = f"BPF iterator {target}"
        function = types.functions.get(f"bpf_iter_{target}")
        if function is None:
            raise Unavailable(Reason.UNSUPPORTED, self.what, "not in this kernel")
        self._buffer = buffer
        self._descriptors: list[int] = []
        try:
            self._open(code, function, (name or f"otel_{target}").encode()[:15])
        except OSError as error:
            self.close()
            raise unavailable(error, self.what, NEEDS) from error

    def _open(self, code: bytes, function: int, name: bytes) -> None:
        bpf.require()
        program = load(code, function, name, self.what)
        self._descriptors.append(program)
        link = bpf.bpf(bpf.LINK_CREATE, struct.pack("=IIII", program, 0, _TRACE_ITER, 0))
        self._descriptors.append(link)
        self.own = OwnIds(programs=frozenset({object_id(program)}), links=frozenset({object_id(link)}))
        self._create = bpf.Call(bpf.ITER_CREATE, 8)
        self._create.words[0] = link

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Of the program and the link."""
        return tuple(self._descriptors)

    def read(self) -> memoryview:
        """All records of one walk, valid until the next read with the same buffer. Raises Unavailable."""
        try:
            descriptor = self._create.check()
            try:
                return self._drain(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise unavailable(error, self.what, NEEDS) from error

    def _drain(self, descriptor: int) -> memoryview:
        filled = retries = 0
        while True:
            view = self._buffer.reserve(filled)
            try:
                count = os.readv(descriptor, [view[filled:]])
            except BlockingIOError:
                retries += 1
                if retries > _RETRIES:
                    raise
                continue
            if count == 0:
                return view[:filled]
            filled += count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Unload. Safe to call twice."""
        while self._descriptors:
            with contextlib.suppress(OSError):
                os.close(self._descriptors.pop())


def load(code: bytes, function: int, name: bytes, what: str) -> int:
    """Load an iterator program that attaches to FUNC *function*: its descriptor.

    The verifier writes its log only in a second try, after a refusal: the log costs more than loading. Raises OSError
    EPERM, or Unavailable(UNSUPPORTED) with the log's last line.
    """
    try:
        return _load(code, function, name, None)
    except OSError as error:
        if error.errno == errno.EPERM:  # EACCES, EINVAL, E2BIG... are verdicts
            raise
    log = ctypes.create_string_buffer(_LOG_BYTES)
    try:
        return _load(code, function, name, log)
    except OSError as error:
        raise Unavailable(Reason.UNSUPPORTED, what, verdict(log.value) or error.strerror or "") from error


def _load(code: bytes, function: int, name: bytes, log: ctypes.Array[ctypes.c_char] | None) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(_LICENSE)
    attr = _PROG_LOAD.pack(
        *(_TRACING, len(code) // 8, bpf.address(instructions), bpf.address(license_text)),
        *((1, _LOG_BYTES, bpf.address(log)) if log else (0, 0, 0)),
        *(0, 0, name, 0, _TRACE_ITER, 0, 0, 0, 0, 0, 0, 0, function, 0),
    )
    return bpf.bpf(bpf.PROG_LOAD, attr)


def verdict(log: bytes) -> str:
    """The verifier's last line that is not its statistics ("processed 12 insns ...")."""
    lines = [line for line in log.decode("utf-8", "replace").splitlines() if line.strip() and not line.startswith("processed ")]
    return lines[-1].strip() if lines else ""


def object_id(descriptor: int) -> int:
    """The id of a program, map or link whose descriptor we hold; CAP_BPF suffices for that."""
    info = ctypes.create_string_buffer(256)
    bpf.bpf(bpf.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, 16, bpf.address(info)))
    number: int = struct.unpack_from("=I", info, 4)[0]
    return number
