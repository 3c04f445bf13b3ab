"""Congestion control settings of mlx5, as the driver lays them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel_hostmetrics.errors import Reason, Unavailable
from otel_hostmetrics.kernel import dcqcn
from otel_hostmetrics.kernel.hostfs import HostFS


def test_parameters_in_debugfs(tmp_path: Path) -> None:
    """One that the firmware refuses costs itself only."""
    directory = tmp_path / "sys/kernel/debug/mlx5/0000:3b:00.0/cc_params"
    directory.mkdir(parents=True)
    for name, value in {"rp_clamp_tgt_rate": "0", "np_cnp_dscp": "48", "np_min_time_between_cnps": "4"}.items():
        (directory / name).write_text(f"{value}\n")
    os.symlink("/sys/class/net/lo/speed", directory / "rtt_resp_dscp")  # EINVAL
    fs = HostFS(str(tmp_path))
    assert dcqcn.cc_params(fs, "0000:3b:00.0") == {"rp_clamp_tgt_rate": 0, "np_cnp_dscp": 48, "np_min_time_between_cnps": 4}
    with pytest.raises(Unavailable, match=r"0000:3b:00\.1") as caught:
        dcqcn.cc_params(fs, "0000:3b:00.1")
    assert caught.value.reason is Reason.ABSENT


def test_enabled_priorities_of_the_vendors_driver(tmp_path: Path) -> None:
    for side in ("roce_np", "roce_rp"):
        directory = tmp_path / "sys/class/net/ens1f0np0/ecn" / side / "enable"
        directory.mkdir(parents=True)
        for priority in range(8):
            (directory / str(priority)).write_text(f"{int(priority == 3)}\n")
    (tmp_path / "sys/class/net/ens1f0np0/ecn/other").mkdir()
    fs = HostFS(str(tmp_path))
    found = dcqcn.ecn(fs, "ens1f0np0")
    assert len(found) == 16
    assert [name for name, enabled in found.items() if enabled] == ["roce_np.3", "roce_rp.3"]
    with pytest.raises(Unavailable, match="ecn") as caught:
        dcqcn.ecn(fs, "ens1f1np1")
    assert caught.value.reason is Reason.ABSENT
