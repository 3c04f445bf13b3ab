"""Settings of DCQCN, the congestion control of RoCE, where mlx5 shows them: debugfs, or sysfs of the vendor's own driver."""

from __future__ import annotations

from otel_hostmetrics.errors import Unavailable
from otel_hostmetrics.kernel.hostfs import HostFS

_SIDES = {"roce_np", "roce_rp"}  # notification point: marks and notifies; reaction point: slows down
_LIMIT = 64  # files of one directory; cc_params has some 22


def cc_params(fs: HostFS, address: str) -> dict[str, int]:
    """/sys/kernel/debug/mlx5/ADDRESS/cc_params: rp_clamp_tgt_rate, np_cnp_dscp and the like, as the firmware has them.

    drivers/infiniband/hw/mlx5/cong.c; *address* is that of the PCI function. Each file is a firmware command, and some
    fail with a line in the kernel's log on older firmware (rtt_resp_dscp, fixed in 6.8): a fact to ask for once.
    Raises Unavailable: ABSENT for other devices, DENIED without root.
    """
    return _numbers(fs, fs.sys("kernel/debug/mlx5", address, "cc_params"))


def ecn(fs: HostFS, interface: str) -> dict[str, bool]:
    """/sys/class/net/X/ecn/{roce_np,roce_rp}/enable/P of MLNX_OFED: ``roce_np.3`` -> whether priority 3 marks or reacts.

    Raises Unavailable: ABSENT with the kernel's own driver.
    """
    found: dict[str, bool] = {}
    directory = fs.sys("class/net", interface, "ecn")
    for side in sorted(_SIDES & set(fs.names(directory))):
        for priority, enabled in _numbers(fs, f"{directory}/{side}/enable").items():
            found[f"{side}.{priority}"] = bool(enabled)
    return found


def _numbers(fs: HostFS, directory: str) -> dict[str, int]:
    """The files of a directory that hold a number; one that cannot be read costs itself only."""
    found: dict[str, int] = {}
    for name in fs.names(directory)[:_LIMIT]:
        try:
            found[name] = fs.integer(f"{directory}/{name}")
        except Unavailable:  # not for this port or firmware
            continue
    return found
