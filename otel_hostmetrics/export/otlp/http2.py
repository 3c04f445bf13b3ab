"""One HTTP/2 connection and unary gRPC calls over it, one at a time (gRPC over HTTP2, PROTOCOL-HTTP2.md).

h2 speaks the protocol, this moves its bytes. With grpcio the agent has 13 MB more resident and six threads more, which wake
up between the calls: 1.9 ms of CPU time for an export in each second, against 0.8 (back to back 0.16, against 0.22).
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from otel_hostmetrics.export.otlp.stream import Buffer, Cancelled, Stream

Headers = Sequence[tuple[bytes, bytes]]
MOST = 4 << 20  # bytes of an answer, as in gRPC
_SETTINGS = {h2.settings.SettingCodes.ENABLE_PUSH: 0, h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65_536}
_NOT_HTTP2 = "what came back is not HTTP/2"
_ALERT = b"\x15\x03"  # begin of a record of TLS (RFC 8446, 5.1): its kind, its version
_LENIENT = h2.config.H2Configuration(client_side=True, header_encoding=None, validate_inbound_headers=False)
# Not what RFC 9113, 8.2.1, allows: servers in Go send a text of theirs with the blanks at its ends.
_DATA = struct.Struct(">HBBBI").pack  # a frame's head (RFC 9113, 4.1): length in 24 bits, type DATA, no flags, stream
_READS = 16  # between two calls; more than that is taken with the call, which has a deadline
_CALLS = 1_000  # h2 remembers each stream that was: 0.1 MB of them

logging.getLogger("hpack").setLevel(logging.INFO)  # below, it logs whole blocks of headers, secrets and all


class Broken(Exception):
    """The connection is of no use any more, and why."""


@dataclass(slots=True)
class Answer:
    """What came back. *reset* is HTTP/2's error code where the stream was cut off."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    reset: int | None = None
    ended: bool = False


class _Message:
    """What is left of a message to be sent."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._parts = [memoryview(part) for part in parts]
        self.left = sum(map(len, self._parts))

    def take(self, size: int) -> list[memoryview]:
        """The next bytes, no more than are left."""
        self.left -= size
        taken = []
        while size:
            part = self._parts.pop(0)
            taken.append(part[:size])
            if len(part) > size:
                self._parts.insert(0, part[size:])
            size -= len(taken[-1])
        return taken


class _Draining(h2.connection.H2ConnectionStateMachine):
    """GOAWAY leaves streams up to its last one open (RFC 9113, 6.8): gRPC's servers end connections so. To h2 it is the end of all."""

    def process_input(self, input_: h2.connection.ConnectionInputs) -> list[h2.events.Event]:
        return [] if input_ is h2.connection.ConnectionInputs.RECV_GOAWAY else super().process_input(input_)


class Connection:
    """Methods raise Broken, OSError of the stream, TimeoutError and Cancelled; the connection is to be closed after any of them."""

    def __init__(self, stream: Stream, deadline: float) -> None:
        """Greet each other."""
        self._stream = stream
        self._h2 = h2.connection.H2Connection(_LENIENT)
        self._h2.state_machine = _Draining()
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values=_SETTINGS)
        self._greeted = False
        self._leaving = False  # the peer takes no more calls
        self._calls = 0
        self._id = 0
        self._answer = Answer()
        self._h2.initiate_connection()
        try:
            while not self._greeted:
                self._greet(deadline)
        except BaseException:
            stream.close()
            raise

    def usable(self) -> bool:
        """Whether another call may be made. What came in the meantime, such as pings, is taken now."""
        try:
            for _ in range(_READS):
                if self._leaving or (data := self._stream.pending()) is None:
                    break
                self._take(data)
        except (OSError, Broken):
            return False
        return not self._leaving and self._calls < _CALLS

    def call(self, headers: Headers, parts: Sequence[Buffer], deadline: float) -> Answer:
        """Send a message of some parts, and wait for the end of the answer."""
        self._calls += 1
        self._answer = answer = Answer()
        try:
            self._id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(self._id, headers)
            message = _Message(parts)
            while not answer.ended:
                self._exchange(message, deadline)
            if message.left and answer.reset is None:
                self._h2.reset_stream(self._id, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError as error:
            raise Broken(f"HTTP/2: {error}") from None
        try:
            self._flush(deadline)
        except (OSError, Cancelled):  # maybe in the middle of a frame; but the answer is here
            self._leaving = True
        return answer

    def _exchange(self, message: _Message, deadline: float) -> None:
        """Send what may be sent, and take what comes."""
        try:
            self._give(message, deadline)
        except ConnectionError:
            self._hear_out()
            if not self._answer.ended:
                raise
        else:
            self._take(self._stream.receive(deadline))

    def _greet(self, deadline: float) -> None:
        try:
            self._flush(deadline)
        except ConnectionError:
            self._hear_out()
            raise
        self._take(self._stream.receive(deadline))

    def _hear_out(self) -> None:
        """A peer that does not want more of this: maybe it has said why. Raises it, if not in an answer."""
        self._leaving = True
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while not self._answer.ended and (data := self._stream.pending()):
                self._take(data)

    def close(self) -> None:
        """May be called again."""
        self._stream.close()

    def _window(self) -> int:
        """Bytes that the peer takes now."""
        return min(self._h2.local_flow_control_window(self._id), self._h2.max_outbound_frame_size)

    def _give(self, message: _Message, deadline: float) -> None:
        """Send as much of it as the peer takes now, without copying.

        These frames are made here: h2 copies each three times, which is 7 times the CPU time of grpcio for a message of 4 MB.
        """
        parts: list[Buffer] = [self._h2.data_to_send()]
        while message.left and (size := min(self._window(), message.left)) > 0:
            parts += (_DATA(size >> 8, size & 0xFF, 0, 0, self._id), *message.take(size))
            self._h2.outbound_flow_control_window -= size
            self._h2.streams[self._id].outbound_flow_control_window -= size
            if not message.left:
                self._h2.end_stream(self._id)
                parts.append(self._h2.data_to_send())
        self._stream.send(parts, deadline)

    def _flush(self, deadline: float) -> None:
        data = self._h2.data_to_send()
        if data:
            self._stream.send([data], deadline)

    def _take(self, data: bytes) -> None:
        if not data:
            raise Broken(f"the collector closed the connection{'' if self._greeted else ' before a word of HTTP/2'}")
        if not self._greeted and data.startswith((b"HTTP/1", _ALERT)):
            raise Broken("what came back is TLS" if data.startswith(_ALERT) else _NOT_HTTP2)
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            raise Broken(f"HTTP/2: {error}" if self._greeted else _NOT_HTTP2) from None
        for event in events:
            self._happened(event)

    def _happened(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RemoteSettingsChanged):
            self._greeted = True
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._leaving = True
            if not self._answer.ended and (event.error_code or not event.last_stream_id or event.last_stream_id < self._id):
                raise Broken(f"the collector ends the connection: {_name(event.error_code)}")
        elif getattr(event, "stream_id", None) == self._id:
            self._answered(event)

    def _answered(self, event: h2.events.Event) -> None:
        answer = self._answer
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = dict(event.headers)  # bytes, without a header_encoding
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if len(answer.body) > MOST:
                raise Broken(f"an answer of more than {MOST} bytes")
            self._h2.acknowledge_received_data(event.flow_controlled_length, self._id)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            answer.reset, answer.ended = int(event.error_code), True
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True


def _name(code: int | None) -> str:
    return str(getattr(code, "name", code)).lower().replace("_", " ")
