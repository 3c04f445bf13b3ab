"""An OTLP receiver in a process of its own: ``python -m tests.system.receiver`` prints its port and takes metrics.

Of every four requests it takes two, puts one off (UNAVAILABLE, to be sent again) and refuses one for good
(INVALID_ARGUMENT), so that each outcome an agent counts does occur.
"""

from __future__ import annotations

import itertools
from concurrent import futures

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as messages
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as service

_OUTCOMES = (None, grpc.StatusCode.UNAVAILABLE, None, grpc.StatusCode.INVALID_ARGUMENT)


class Receiver(service.MetricsServiceServicer):
    """Takes and forgets."""

    def __init__(self) -> None:
        self._outcomes = itertools.cycle(_OUTCOMES)

    def Export(  # noqa: N802 - gRPC's name
        self, request: messages.ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> messages.ExportMetricsServiceResponse:
        outcome = next(self._outcomes)
        if outcome is not None:
            context.abort(outcome, "as the test wants it")
        return messages.ExportMetricsServiceResponse()


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    service.add_MetricsServiceServicer_to_server(Receiver(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)  # noqa: T201
    server.wait_for_termination()


if __name__ == "__main__":
    main()
