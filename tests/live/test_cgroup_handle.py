"""From cgroup ids to paths on the running kernel."""

from __future__ import annotations

import os

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel.cgroup_handle import CgroupIds
from otel_hostmetrics.kernel.hostfs import HostFS
from tests.kernel.as_nobody import as_nobody
from tests.live.zoo import cgroup2


def test_an_id_leads_to_its_path(cgroup: str) -> None:
    ids = CgroupIds(HostFS())
    try:
        assert ids.path(os.stat(cgroup).st_ino) == cgroup.removeprefix(cgroup2())
        assert ids.path(os.stat(cgroup2()).st_ino) == "/"
    finally:
        ids.close()
        ids.close()


def test_a_cgroup_that_was_removed_is_gone() -> None:
    directory = f"{cgroup2()}/test-removed-{os.getpid()}"
    os.mkdir(directory)
    number = os.stat(directory).st_ino
    os.rmdir(directory)
    ids = CgroupIds(HostFS())
    try:
        for each in (number, 0, 2**64 - 1):
            with pytest.raises(Unavailable) as raised:
                ids.path(each)
            assert raised.value.reason is Reason.GONE
    finally:
        ids.close()


def test_without_the_capability(cgroup: str) -> None:
    number = os.stat(cgroup).st_ino

    def ask() -> str:
        try:
            return CgroupIds(HostFS()).path(number)
        except Unavailable as error:
            return f"{error.reason.name} {error.needs}"

    assert as_nobody(ask) == "DENIED CAP_DAC_READ_SEARCH"
