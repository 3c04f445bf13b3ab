"""One HTTP request to a daemon of this host: over its socket, or over TLS to the kubelet.

http.client and ssl are loaded only where such a daemon is configured: 4 MB resident.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

if TYPE_CHECKING:
    from http.client import HTTPConnection

_MOST = 64 << 20  # bytes of an answer: the kubelet's list of 500 pods is some megabytes
_CHUNK = 1 << 16
_TIMEOUT = 5.0  # s, for each step and for all of the answer
_OK, _DENIED = 200, (401, 403)


def get_local(path: str, target: str) -> bytes:
    """The body of ``GET target`` from the daemon behind the socket *path*. Raises Unavailable."""
    from http.client import HTTPConnection

    connection = HTTPConnection("localhost", timeout=_TIMEOUT)

    def connect() -> None:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(_TIMEOUT)
        connection.sock.connect(path)

    connection.connect = connect  # type: ignore[method-assign] # the one step that is not as over TCP
    return _get(connection, target, {}, path, needs=f"unix:{path}")


def get_tls(host: str, port: int, target: str, headers: Mapping[str, str], ca: str, verify: bool) -> bytes:
    """The body of ``GET target``. *ca* is a PEM file, empty for the system's. Raises Unavailable."""
    import ssl
    from http.client import HTTPSConnection

    what = f"https://{host}:{port}{target}"
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:  # ssl.SSLError is one
        raise Unavailable(Reason.UNREADABLE, ca, error.strerror or str(error)) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return _get(HTTPSConnection(host, port, timeout=_TIMEOUT, context=context), target, headers, what, needs="rbac:nodes/pods")


def _get(connection: HTTPConnection, target: str, headers: Mapping[str, str], what: str, needs: str) -> bytes:
    from http.client import HTTPException

    deadline = time.monotonic() + _TIMEOUT
    try:
        connection.request("GET", target, headers={"Accept": "application/json", **headers})
        answer = connection.getresponse()
        if answer.status != _OK:
            reason = Reason.DENIED if answer.status in _DENIED else Reason.UNREADABLE
            raise Unavailable(reason, what, f"HTTP status {answer.status}", needs if reason is Reason.DENIED else "")
        return _body(answer.read1, what, deadline)
    except TimeoutError:
        raise Unavailable(Reason.LATE, what, f"no answer within {_TIMEOUT:g} s") from None
    except OSError as error:
        if hasattr(error, "library"):  # ssl.SSLError, whose errno is not the system's
            raise Unavailable(Reason.UNREADABLE, what, str(error)) from None
        raise unavailable(error, what, needs) from None
    except (HTTPException, ValueError) as error:  # ValueError: a token with a line break
        raise Unavailable(Reason.MALFORMED, what, str(error) or type(error).__name__) from None
    finally:
        connection.close()


def _body(read: Callable[[int], bytes], what: str, deadline: float) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := read(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > _MOST:
            raise Unavailable(Reason.MALFORMED, what, f"more than {_MOST >> 20} MiB")
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts)
