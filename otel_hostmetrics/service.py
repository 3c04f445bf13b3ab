"""The agent as a systemd service: sd_notify(3) without a library, and the watchdog.

https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import logging
import os
import socket
import time

_log = logging.getLogger(__name__)


class Service:
    """Tells the service manager how we are, where one asked (NOTIFY_SOCKET); elsewhere every call does nothing."""

    def __init__(self, environment: dict[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        asked = usec.isdecimal() and int(usec) > 0 and pid in ("", str(os.getpid()))
        # Half the time the manager allows, as sd_watchdog_enabled(3) advises.
        self.watchdog: float | None = int(usec) / 2e6 if asked and self._address else None

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        if self.watchdog is not None:
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1)
                sock.sendto(message.encode(errors="replace"), self._address)
        except OSError as error:  # the manager went away or denies us: not a reason to stop measuring
            _log.debug("service manager not reached: %s", error)
