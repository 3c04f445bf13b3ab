"""How an interface says no. Every reader in this package raises one of these, never a bare OSError."""

from __future__ import annotations

import enum
import errno


class Reason(enum.Enum):
    """Why a value is not here. The member's value is the ``error.type`` attribute the agent reports."""

    ABSENT = "absent"  # no such hardware, driver or kernel subsystem on this host
    DENIED = "denied"  # there, but we lack a capability, a file mode or a mount
    UNSUPPORTED = "unsupported"  # there, but this driver or kernel does not provide it
    UNREADABLE = "unreadable"  # there and provided, but not readable at this moment
    GONE = "gone"  # was there when we opened it: unplugged, unloaded, exited
    MALFORMED = "malformed"  # answered, but not in the form we know
    LATE = "late"  # still inside a call when the cycle closed


class Unavailable(Exception):
    """A value cannot be read now.

    *what* names the file, request or call, *reason* says why, and *needs* names what would cure a DENIED:
    capabilities joined by ``+`` (``CAP_BPF+CAP_PERFMON``), alternatives by ``|``, a path that must be readable, ``unix:PATH``,
    a socket that must be writable, or ``rbac:RESOURCE``, which the kubelet must let us ``get``.
    """

    def __init__(self, reason: Reason, what: str, detail: str = "", needs: str = "") -> None:
        super().__init__(f"{what}: {reason.value}{': ' + detail if detail else ''}")
        self.reason = reason
        self.what = what
        self.detail = detail
        self.needs = needs


_REASONS = {
    errno.ENOENT: Reason.ABSENT,
    errno.ENOTDIR: Reason.ABSENT,
    errno.ENXIO: Reason.ABSENT,
    errno.EACCES: Reason.DENIED,
    errno.EPERM: Reason.DENIED,
    errno.EOPNOTSUPP: Reason.UNSUPPORTED,
    errno.ENOSYS: Reason.UNSUPPORTED,
    errno.EINVAL: Reason.UNSUPPORTED,  # sysfs attributes of ports that lack the counter; unknown bpf(2) commands
    errno.ENODEV: Reason.GONE,
    errno.ESRCH: Reason.GONE,
    errno.ESTALE: Reason.GONE,
}


def unavailable(error: OSError, what: str, needs: str = "") -> Unavailable:
    """Translate an errno, once, here. What is not in the table is UNREADABLE: it may work the next time."""
    reason = _REASONS.get(error.errno or 0, Reason.UNREADABLE)
    return Unavailable(reason, what, error.strerror or "", needs if reason is Reason.DENIED else "")
