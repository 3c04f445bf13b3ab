"""What the scrape endpoint answers. Knows requests and responses, not sockets."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import msgspec

from otel_hostmetrics import __version__
from otel_hostmetrics.export.prometheus.negotiate import gzip_accepted, page_format
from otel_hostmetrics.export.prometheus.text import Page
from otel_hostmetrics.model import Batch, Status

_log = logging.getLogger(__name__)
_PLAIN, _HTML, _JSON = "text/plain; charset=utf-8", "text/html; charset=utf-8", "application/json"
_GZIP_FROM = 1400  # bytes: less fits in one packet anyway
_HTML_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})


class Request(NamedTuple):
    """The parts of an HTTP request that matter here."""

    method: str
    target: str
    accept: str = ""
    accept_encoding: str = ""


class Response(msgspec.Struct, frozen=True):
    """*route* is the matched route, ``other`` if none did: never the client's own text, which would be a series each."""

    status: int
    content_type: str
    body: bytes
    route: str
    headers: tuple[tuple[str, str], ...] = ()


class Routes:
    """*scrape* yields the batch to render and may collect; *latest* is the last one, None before the first cycle."""

    def __init__(self, page: Page, scrape: Callable[[], Batch], latest: Callable[[], Batch | None]) -> None:
        self._page = page
        self._scrape = scrape
        self._latest = latest
        self._reported: set[tuple[str, type[Exception]]] = set()
        self._table: dict[str, Callable[[Request, str], Response]] = {
            "/": self._landing,
            "/metrics": self._metrics,
            "/-/healthy": _healthy,
            "/health": _healthy,
            "/-/ready": self._ready,
            "/ready": self._ready,
        }

    def answer(self, request: Request) -> Response:
        """The response to GET; to HEAD it is the same and the body is left out by who sends it. Raises nothing."""
        route = _path(request.target)
        answer = self._table.get(route)
        if answer is None:
            return Response(404, _PLAIN, b"not found\n", "other")
        if request.method not in ("GET", "HEAD"):
            return Response(405, _PLAIN, b"method not allowed\n", route, (("Allow", "GET, HEAD"),))
        try:
            response = answer(request, route)
            if len(response.body) >= _GZIP_FROM and gzip_accepted(request.accept_encoding):
                return _compressed(response)
            return response
        except Exception as error:  # the server outlives any source, and a scrape that failed must say so
            return self._failed(route, error)

    def _metrics(self, request: Request, route: str) -> Response:
        form = page_format(request.accept)
        body = self._page.render(self._scrape(), form)
        return Response(200, form.content_type, body, route, (("Vary", "Accept, Accept-Encoding"),))

    def _ready(self, _: Request, route: str) -> Response:
        """Ready once a first cycle has decided what every source is; one that failed does not make the agent unready."""
        batch = self._latest()
        sources = {name: _shown(status) for name, status in batch.snapshot.statuses.items()} if batch else {}
        body = msgspec.json.encode({"ready": batch is not None, "sources": sources}) + b"\n"
        return Response(200 if batch else 503, _JSON, body, route)

    def _landing(self, _: Request, route: str) -> Response:
        batch = self._latest()
        statuses = batch.snapshot.statuses if batch else {}
        items = (f"<li>{f'{name} is {_told(status)}'.translate(_HTML_ESCAPES)}</li>" for name, status in statuses.items())
        text = (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>otel-hostmetrics</title></head><body>\n'
            f"<h1>otel-hostmetrics {__version__}</h1>\n"
            '<p><a href="/metrics">metrics</a> <a href="/-/ready">ready</a> <a href="/-/healthy">healthy</a></p>\n'
            f"<h2>Sources</h2>\n<ul>{''.join(items) or '<li>no cycle yet</li>'}</ul>\n</body></html>\n"
        )
        return Response(200, _HTML, text.encode("utf-8", "replace"), route)

    def _failed(self, route: str, error: Exception) -> Response:
        kind = (route, type(error))
        if kind not in self._reported:
            self._reported.add(kind)
            _log.error("%s failed, this kind is reported once: %s: %s", route, type(error).__name__, error, exc_info=error)
        return Response(500, _PLAIN, f"{route} failed: {type(error).__name__}, see the agent's log\n".encode(), route)


def _healthy(_: Request, route: str) -> Response:
    return Response(200, _PLAIN, b"OK\n", route)


@lru_cache(64)  # scrapers ask for the same
def _path(target: str) -> str:
    """The path of ``/metrics?x=1`` and of ``http://host/metrics``, which a server must take as well (RFC 9112, 3.2.2)."""
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return target.partition("?")[0]


def _shown(status: Status) -> dict[str, str]:
    """What is known of a source, without what is empty."""
    reason = status.reason.value if status.reason else ""
    known = {"state": status.state.value, "reason": reason, "detail": status.detail, "needs": status.needs}
    return {key: text for key, text in known.items() if text}


def _told(status: Status) -> str:
    """The same as the log has it."""
    detail = status.detail or (status.reason.value if status.reason else "")
    return f"{status.state.value}{f' ({detail})' if detail else ''}{f'; needs {status.needs}' if status.needs else ''}"


def _compressed(response: Response) -> Response:
    """Level 1: 0.3 us a point for a page 12 times smaller; level 6 takes 2.5 times as long for 17 times."""
    body = zlib.compress(response.body, 1, wbits=31)  # 31: gzip's header and trailer
    return msgspec.structs.replace(response, body=body, headers=(*response.headers, ("Content-Encoding", "gzip")))
