"""An OTLP/gRPC receiver that only counts, so that it disturbs little: ``python -m tests.perf.receiver``.

Prints its port; when standard input ends, how many requests it was sent.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

_EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_LARGEST = 64 << 20


class _Counter(grpc.GenericRpcHandler):
    """Takes every request as the bytes it is; an empty answer is full success."""

    def __init__(self) -> None:
        self.requests = 0

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return grpc.unary_unary_rpc_method_handler(self._take) if handler_call_details.method == _EXPORT else None

    def _take(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        self.requests += 1  # by the only worker
        return b""


def main() -> None:
    counter = _Counter()
    server = grpc.server(ThreadPoolExecutor(1), [counter], options=[("grpc.max_receive_message_length", _LARGEST)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(None).wait()
    print(counter.requests)


if __name__ == "__main__":
    main()
