"""How a gRPC call ended, from HTTP/2's headers (gRPC's doc/PROTOCOL-HTTP2.md, "Responses", and doc/http-grpc-status-mapping.md)."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Iterator

from otel_hostmetrics.export.otlp.channel import Metadata
from otel_hostmetrics.export.otlp.http2 import MOST, Answer

_CODES = (
    "", "cancelled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists", "permission_denied",
    "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented", "internal", "unavailable", "data_loss",
    "unauthenticated",
)  # fmt: skip
_OF_HTTP = {
    400: "internal", 401: "unauthenticated", 403: "permission_denied", 404: "unimplemented",
    429: "unavailable", 502: "unavailable", 503: "unavailable", 504: "unavailable",
}  # fmt: skip
_OF_RESET = {7: "unavailable", 8: "cancelled", 11: "resource_exhausted", 12: "permission_denied"}  # REFUSED_STREAM, CANCEL...
GZIP = 31  # of zlib: a window of 2^15 bytes, with a header of gzip
_PREFIX = 5  # bytes in front of a message: whether it is compressed, its length


def status(answer: Answer) -> tuple[str, str]:
    """(name of the status in lower case, empty for OK; what the server said of it)."""
    fields = answer.trailers or answer.headers  # of a call that fails at once there is but one block
    number = fields.get(b"grpc-status")
    if number is None and answer.reset is not None:
        return _OF_RESET.get(answer.reset, "internal"), f"the collector cut the call off: HTTP/2 error {answer.reset}"
    if number is None:
        http = answer.headers.get(b":status", b"")
        code = _OF_HTTP.get(int(http), "unknown") if http.isdigit() else "unknown"
        return code, f"no gRPC is spoken there: HTTP status {http[:9].decode('latin-1')}"
    code = _CODES[int(number)] if number.isdigit() and int(number) < len(_CODES) else "unknown"
    return code, _decoded(fields.get(b"grpc-message", b""))


def message(answer: Answer) -> bytes | None:
    """The answer's one message; None if there is none that can be read."""
    body = bytes(answer.body)
    if len(body) < _PREFIX or body[0] > 1 or len(body) != _PREFIX + int.from_bytes(body[1:_PREFIX], "big"):
        return None
    return _unzipped(answer, body[_PREFIX:]) if body[0] else body[_PREFIX:]


def _unzipped(answer: Answer, data: bytes) -> bytes | None:
    """Servers in Go compress as the request was, unasked."""
    if answer.headers.get(b"grpc-encoding") != b"gzip":
        return None
    unzip = zlib.decompressobj(GZIP)
    try:
        found = unzip.decompress(data, MOST)
    except zlib.error:
        return None
    return found if unzip.eof else None


def metadata(answer: Answer) -> Iterator[tuple[str, str | bytes]]:
    """Of the answer's end; values of ``-bin`` keys are bytes."""
    for key, value in (answer.trailers or answer.headers).items():
        name = key.decode("latin-1")
        if not name.endswith("-bin"):
            yield name, value.decode("latin-1")
            continue
        try:
            yield name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
        except binascii.Error:
            continue


def encoded(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """As headers."""
    return [(name.encode(), value.encode() if isinstance(value, str) else base64.b64encode(value).rstrip(b"=")) for name, value in metadata]


def _decoded(text: bytes) -> str:
    """grpc-message is percent-encoded UTF-8."""
    return re.sub(rb"%([0-9a-fA-F]{2})", lambda it: bytes.fromhex(it[1].decode()), text).decode("utf-8", "replace")
