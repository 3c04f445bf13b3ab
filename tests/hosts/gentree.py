"""A host of any size as a file tree: DEVICES mlx5-like devices of 53 counters a port, and 8 RAPL zones of two sockets.

``python -m tests.hosts.gentree ROOT DEVICES [PORTS]``. For benchmarks, and for tests that need many devices: names and
forms are those of a ConnectX-7, values are made up and the same in every run.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


COUNTERS = _words("""VL15_dropped excessive_buffer_overrun_errors link_downed link_error_recovery local_link_integrity_errors
    multicast_rcv_packets multicast_xmit_packets port_rcv_constraint_errors port_rcv_data port_rcv_errors port_rcv_packets
    port_rcv_remote_physical_errors port_rcv_switch_relay_errors port_xmit_constraint_errors port_xmit_data port_xmit_discards
    port_xmit_packets port_xmit_wait symbol_error unicast_rcv_packets unicast_xmit_packets""")
HW_COUNTERS = _words("""duplicate_request implied_nak_seq_err lifespan local_ack_timeout_err np_cnp_sent np_ecn_marked_roce_packets
    out_of_buffer out_of_sequence packet_seq_err req_cqe_error req_cqe_flush_error req_remote_access_errors
    req_remote_invalid_request req_rnr_retries_exceeded req_transport_retries_exceeded resp_cqe_error resp_cqe_flush_error
    resp_local_length_error resp_remote_access_errors rnr_nak_retry_err roce_adp_retrans roce_adp_retrans_to roce_slow_restart
    roce_slow_restart_cnps roce_slow_restart_trans rp_cnp_handled rp_cnp_ignored rx_atomic_requests rx_dct_connect
    rx_icrc_encapsulated rx_read_requests rx_write_requests""")
DEVICE = {"fw_ver": "28.39.1002", "board_id": "MT_0000000838", "hca_type": "MT4129", "hw_rev": "0", "node_type": "1: CA"}
PORT = {
    "state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": "400 Gb/sec (4X NDR)", "link_layer": "Ethernet", "lid": "0x0",
    "sm_lid": "0x0", "lid_mask_count": "0", "cap_mask": "0x00010000", "pkeys/0": "0xffff",
}  # fmt: skip


def generate(root: Path, devices: int, ports: int = 1) -> None:
    """Make the tree below *root*."""
    for number in range(devices):
        _device(root / "sys", number, ports, random.Random(number))
    for package in range(2):
        _package(root / "sys", package, random.Random(package))


def _device(sys_: Path, number: int, ports: int, values: random.Random) -> None:
    function = sys_ / f"devices/pci0000:00/0000:{0x10 + number:02x}:00.0"
    device = function / f"infiniband/mlx5_{number}"
    guid = f"9c63:c003:00aa:{number:04x}"
    _write(function, {"vendor": "0x15b3", "device": "0x1021", "numa_node": str(number % 2)})
    _write(device, {**DEVICE, "node_guid": guid, "sys_image_guid": guid, "node_desc": f"host mlx5_{number}"})
    for port in range(1, ports + 1):
        directory = device / "ports" / str(port)
        _write(directory, PORT)
        _write(directory / "counters", {name: str(_value(name, values)) for name in COUNTERS})
        _write(directory / "hw_counters", {name: "10" if name == "lifespan" else str(values.randrange(10**9)) for name in HW_COUNTERS})
        _write(directory / "gids", {"0": f"fe80:0000:0000:0000:9e63:c0ff:feaa:{number * 16 + port:04x}"})
        _write(directory / "gid_attrs", {"types/0": "RoCE v2", "ndevs/0": f"ens{number}f{port - 1}np{port - 1}"})
    (device / "device").symlink_to(function)
    _link(sys_ / f"class/infiniband/mlx5_{number}", device)


def _value(name: str, values: random.Random) -> int:
    traffic = any(word in name for word in ("data", "packets", "wait"))
    return values.randrange(10**11, 10**15) if traffic and name != "port_xmit_wait" else values.randrange(10)


def _package(sys_: Path, number: int, values: random.Random) -> None:
    package = sys_ / f"devices/virtual/powercap/intel-rapl/intel-rapl:{number}"
    parts = [(package / f"intel-rapl:{number}:{place}", name) for place, name in enumerate(("core", "uncore", "dram"))]
    for directory, name in [(package, f"package-{number}"), *parts]:
        energy = {"energy_uj": str(values.randrange(10**9, 10**11)), "max_energy_range_uj": "262143328850"}
        limit = {"constraint_0_name": "long_term", "constraint_0_power_limit_uw": "270000000"}
        _write(directory, {"name": name, "enabled": "1", **energy, **limit})
        _link(sys_ / "class/powercap" / directory.name, directory)


def _write(directory: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


if __name__ == "__main__":
    generate(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
