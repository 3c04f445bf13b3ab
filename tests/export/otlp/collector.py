"""A real gRPC server with the OTLP metrics service, and what stands between it and an agent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as service

Answer = Callable[[grpc.ServicerContext], Any]


def fail(code: grpc.StatusCode, details: str = "on purpose") -> Answer:
    """Answer a call with an error."""
    return lambda context: context.abort(code, details)


def retry_in(code: grpc.StatusCode, seconds: float) -> Answer:
    """Answer a call with an error that carries google.rpc.RetryInfo."""
    info = AnyMessage()
    info.Pack(RetryInfo(retry_delay=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))))
    status = Status(code=code.value[0], message="slow down", details=[info]).SerializeToString()

    def answer(context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", status),))
        context.abort(code, "slow down")

    return answer


def partial(rejected: int, message: str) -> Answer:
    """Take a request, but not all of its points."""
    return lambda _: pb.ExportMetricsServiceResponse(
        partial_success=pb.ExportMetricsPartialSuccess(rejected_data_points=rejected, error_message=message)
    )


class Collector(service.MetricsServiceServicer):
    """Answers calls as told in *answers*, then with success; keeps what it accepted."""

    def __init__(self, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None) -> None:
        self.answers: list[Answer] = []
        self.accepted: list[pb.ExportMetricsServiceRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.times: list[float] = []
        self.changed = threading.Condition()
        self._server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        service.add_MetricsServiceServicer_to_server(self, self._server)
        self.port = self._server.add_secure_port(address, credentials) if credentials else self._server.add_insecure_port(address)
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        with self.changed:
            self.times.append(time.monotonic())
            self.metadata.append(dict(context.invocation_metadata()))
            answer = self.answers.pop(0) if self.answers else None
            self.changed.notify_all()
        response = answer(context) if answer else pb.ExportMetricsServiceResponse()
        with self.changed:
            self.accepted.append(request)
            self.changed.notify_all()
        return response

    def wait(self, calls: int, timeout: float = 10) -> None:
        """Until that many calls have come."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.times) >= calls, timeout), f"{len(self.times)} calls, not {calls}"

    def names(self) -> list[str]:
        """The metric in each accepted request."""
        return [each.resource_metrics[0].scope_metrics[0].metrics[0].name for each in self.accepted]

    def stop(self) -> None:
        self._server.stop(None).wait()


@contextlib.contextmanager
def running(address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None) -> Iterator[Collector]:
    made = Collector(address, credentials)
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


class Tap:
    """A TCP relay in front of a collector, that counts what goes to it, and can be plugged."""

    def __init__(self, port: int) -> None:
        self.seen = 0
        self.plugged = False
        self.connections = 0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                held = [self.plugged]  # a connection made while plugged is open again after; an older one stays dead
                for source, sink, count in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._relay, args=(source, sink, count, held), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, count: bool, held: list[bool]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                held[0] |= self.plugged
                self.seen += len(data) if count else 0
                if not held[0]:
                    sink.sendall(data)

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
