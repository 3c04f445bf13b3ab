"""``otel-hostmetrics rdma`` as people type it, and after each command what ``rdma`` of iproute2 says of the same port."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.machine.guest.agent import command, environment
from tests.machine.guest.commands import listed

_AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def gather(binder: str, counting: str) -> dict[str, dict[str, Any]]:
    """By what was asked. *binder* is a port on which counter sets can be set, *counting* one with optional counters."""
    return {
        "show": _asked(binder, "show", binder),
        "auto": _asked(binder, "auto", binder),
        "auto by type": _asked(binder, "auto", binder, "--by", "type"),
        "auto as nobody": _asked(binder, "auto", binder, prefix=_AS_NOBODY),
        "off": _asked(binder, "off", binder),
        "off again": _asked(binder, "off", binder),
        "optional": _asked(counting, "optional", counting, "cc_rx_ce_pkts", "cc_rx_cnp_pkts"),
        "one optional": _asked(counting, "optional", counting, "cc_rx_cnp_pkts"),
        "unknown": _asked(counting, "optional", counting, "nonesuch"),
        "no optional": _asked(counting, "optional", counting),
        "no port": _asked(binder, "auto", binder.replace("/1", "/9")),
    }


def _asked(port: str, *arguments: str, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    asked = (*prefix, *command("rdma", *arguments))
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False, env=environment())
    return {
        "status": done.returncode,
        "output": done.stdout,
        "error": done.stderr,
        "mode": listed("rdma", "-j", "statistic", "qp", "mode", "link", port),
        "optional": listed("rdma", "-j", "statistic", "mode", "link", port),
    }
