"""One gRPC call to a daemon of this host, over its socket; messages stay bytes."""

from __future__ import annotations

import os
import sys
from types import ModuleType

from otel_hostmetrics.errors import Reason, Unavailable, unavailable

_MOST = 16 << 20  # bytes of an answer: containerd's own limit
_REASONS = {
    "UNIMPLEMENTED": Reason.UNSUPPORTED,
    "PERMISSION_DENIED": Reason.DENIED,
    "UNAUTHENTICATED": Reason.DENIED,
    "DEADLINE_EXCEEDED": Reason.LATE,
}


def call(socket: str, method: str, request: bytes = b"", timeout: float = 5.0) -> bytes:
    """The answer of ``/package.Service/Method``. The connection lives as long as the call. Raises Unavailable."""
    what = f"{socket} {method.rpartition('/')[2]}"
    try:
        os.stat(socket)
    except OSError as error:
        raise unavailable(error, socket, needs=f"unix:{socket}") from None
    if not os.access(socket, os.R_OK | os.W_OK):
        raise Unavailable(Reason.DENIED, socket, "may not connect", needs=f"unix:{socket}")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else its remarks on connections go to stderr, past our log
    _import_grpc()
    import grpc

    options = (
        ("grpc.max_receive_message_length", _MOST),
        ("grpc.default_authority", "localhost"),  # servers in Go refuse a path as authority
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    )
    with grpc.insecure_channel(f"unix://{os.path.abspath(socket)}", options) as channel:
        try:
            answer: bytes = channel.unary_unary(method)(request, timeout=timeout)  # type: ignore[arg-type] # the stubs cannot express bytes
        except grpc.RpcError as error:
            status = error.code().name if isinstance(error, grpc.Call) else ""
            detail = error.details() if isinstance(error, grpc.Call) else str(error)
            raise Unavailable(_REASONS.get(status, Reason.UNREADABLE), what, f"{status} {detail}".strip()) from None
    return answer


def _import_grpc() -> None:
    """Import grpc, where it is needed, without grpc.aio and, for the asyncio below it, without ssl: 45 -> 38 MB resident (measured).

    gRPC has TLS of its own. Whoever needs these two can import them afterwards.
    """
    if "grpc" in sys.modules:
        return
    stand_ins = {"grpc.aio": ModuleType("grpc.aio"), "ssl": None}
    missing = [name for name in stand_ins if name not in sys.modules]
    sys.modules.update({name: stand_ins[name] for name in missing})  # type: ignore[misc] # None: "not installed"
    try:
        import grpc
    finally:
        for name in missing:
            del sys.modules[name]
    if "grpc.aio" in missing:
        del grpc.aio
