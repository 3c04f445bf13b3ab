"""Reading kernel files below another root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.hostfs import CounterFile, HostFS


def test_paths() -> None:
    fs = HostFS()
    assert (fs.proc("self", "stat"), fs.sys("class"), fs.path("/run/x"), fs.path("run", "x")) == (
        "/proc/self/stat",
        "/sys/class",
        "/run/x",
        "/run/x",
    )
    fs = HostFS("/host")
    assert (fs.proc("1"), fs.sys("fs/bpf"), fs.path("/run")) == ("/host/proc/1", "/host/sys/fs/bpf", "/host/run")
    fs = HostFS("/host", procfs="/p", sysfs="/s")
    assert (fs.proc("1"), fs.sys("fs"), fs.path("run")) == ("/p/1", "/s/fs", "/host/run")


def test_text_integer_and_names(tmp_path: Path) -> None:
    fs = HostFS(str(tmp_path))
    (tmp_path / "b").write_bytes(b" mlx5\xff_0\n")
    (tmp_path / "a").write_text("-42\n")
    assert fs.text(fs.path("b")) == "mlx5\\xff_0"
    assert fs.integer(fs.path("a")) == -42
    assert fs.names(fs.path("")) == ["a", "b"]


def test_a_file_longer_than_a_page_is_read_whole() -> None:
    assert len(HostFS().text("/proc/self/smaps").splitlines()) > 100


def test_a_counter_is_read_again_through_one_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "counter"
    path.write_text("1\n")
    before = len(os.listdir("/proc/self/fd"))
    with CounterFile(str(path)) as counter:
        assert counter.read() == 1
        path.write_text(f"{2**64 - 1}\n")
        assert counter.read() == 2**64 - 1
        path.write_text("N/A (no PMA)\n")
        with pytest.raises(Unavailable) as caught:
            counter.read()
        assert caught.value.reason is Reason.MALFORMED
    counter.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_reasons(tmp_path: Path) -> None:
    fs = HostFS(str(tmp_path))
    for read in (fs.text, fs.integer, fs.names):
        with pytest.raises(Unavailable) as caught:
            read(fs.path("missing"))
        assert caught.value.reason is Reason.ABSENT
        assert caught.value.what == str(tmp_path / "missing")
    (tmp_path / "huge").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(Unavailable) as caught:
        fs.text(fs.path("huge"))
    assert caught.value.reason is Reason.MALFORMED
