"""The scrape endpoint: one thread, non-blocking sockets, every connection with a deadline."""

from __future__ import annotations

import errno
import functools
import logging
import os
import select
import socket
import threading
import time

from otel_hostmetrics.catalogue.agent import ERROR_TYPE, HTTP_CONNECTIONS, HTTP_DURATION, HTTP_REJECTED, METHOD, ROUTE, STATUS_CODE
from otel_hostmetrics.export.prometheus.address import bind
from otel_hostmetrics.export.prometheus.connection import Closed, Connection
from otel_hostmetrics.export.prometheus.routes import Request, Routes
from otel_hostmetrics.settings import Prometheus
from otel_hostmetrics.telemetry import Telemetry

_log = logging.getLogger(__name__)
_ACCEPTS = 64  # connections taken in one turn, so that a flood of them does not starve those we have
_PAUSE = 0.5  # seconds without accepting while the process has no descriptor left
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_JOIN = 0.5  # seconds close() waits for a scrape in progress; stopping has a budget of 2 s for everything


class Server:
    """start() binds and serves until close(). Scrapes run in the server's own thread, one at a time."""

    def __init__(self, settings: Prometheus, address: tuple[str, int], routes: Routes, telemetry: Telemetry) -> None:
        self._settings = settings
        self._wanted = address
        self._routes = routes
        self._telemetry = telemetry
        self._connections: dict[int, Connection] = {}  # by descriptor
        self._measure = functools.cache(
            lambda method, route, status: telemetry.recorder(HTTP_DURATION, {METHOD: method, ROUTE: route, STATUS_CODE: status})
        )  # of few: methods, routes and statuses are ours
        self._known: dict[bytes, Request] = {}  # requests as they come from the wire, parsed before
        self._listener: socket.socket | None = None
        self._wakeup = -1
        self._stopping = False
        self._accept_from = 0.0  # monotonic time; 0 while the listener is watched
        self._reported: set[type[Exception]] = set()
        self._thread = threading.Thread(target=self._serve, name="prometheus", daemon=True)

    def start(self) -> None:
        """Raises Unavailable if the address cannot be had."""
        self._listener = bind(*self._wanted)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._telemetry.set(HTTP_CONNECTIONS, 0)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound: port 0 has become a real one."""
        if self._listener is None:
            raise RuntimeError("the server is not started")
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Drop every connection and stop. Safe to call twice, and before start()."""
        if self._listener is None or self._stopping:
            return
        self._stopping = True
        os.eventfd_write(self._wakeup, 1)
        self._thread.join(_JOIN)
        if self._thread.is_alive():
            _log.warning("the scrape endpoint still answers after %g s, its thread is left behind", _JOIN)
        else:
            os.close(self._wakeup)

    def _serve(self) -> None:
        listener = self._listener
        assert listener is not None
        with select.epoll() as epoll, listener:  # not through `selectors`: with cold caches an answer costs 216 us, not 241
            listening = listener.fileno()
            epoll.register(listening, select.EPOLLIN)
            epoll.register(self._wakeup, select.EPOLLIN)
            patience: float | None = None
            while not self._stopping:
                ready = epoll.poll(patience)
                now = time.monotonic()  # before a scrape that takes long: what arrives meanwhile is read before it is overdue
                for descriptor, _ in ready:
                    if descriptor in self._connections:
                        self._turn(epoll, self._connections[descriptor])
                    elif descriptor == listening:
                        self._accept(epoll, listener)
                patience = self._expire(epoll, listener, now)
            for connection in tuple(self._connections.values()):
                self._drop(epoll, connection)

    def _accept(self, epoll: select.epoll, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                client, _peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(epoll, listener, error)
                return  # else the client went before we took it
            if len(self._connections) >= self._settings.max_connections and not self._make_place(epoll):
                self._telemetry.add(HTTP_REJECTED, 1, {ERROR_TYPE: "limit"})
                client.close()
                continue
            client.setblocking(False)
            times = self._settings.header_timeout, self._settings.idle_timeout
            connection = Connection(client, self._routes.answer, self._measure, self._known, *times)
            self._connections[client.fileno()] = connection
            epoll.register(client, select.EPOLLIN)
            self._telemetry.set(HTTP_CONNECTIONS, len(self._connections))

    def _make_place(self, epoll: select.epoll) -> bool:
        """Close the connection that waits longest for its next request: who keeps them open does not lock out the others."""
        idle = [one for one in self._connections.values() if one.idle]
        if idle:
            self._drop(epoll, min(idle, key=lambda one: one.deadline))
        return bool(idle)

    def _turn(self, epoll: select.epoll, connection: Connection) -> None:
        try:
            connection.turn()
        except Closed as closed:
            self._drop(epoll, connection, closed.cause)
        except Exception as error:  # a mistake of ours costs this connection, not the endpoint
            if type(error) not in self._reported:
                self._reported.add(type(error))
                _log.exception("a connection of the scrape endpoint failed, this kind is reported once")
            self._drop(epoll, connection)
        else:
            events = select.EPOLLOUT if connection.writing else select.EPOLLIN
            if connection.watched != events:
                epoll.modify(connection.socket, events)
                connection.watched = events

    def _expire(self, epoll: select.epoll, listener: socket.socket, now: float) -> float | None:
        """Do what is due. Returns the seconds until something has to be done unasked; None: nothing."""
        if self._accept_from and self._accept_from <= now:
            self._accept_from = 0.0
            epoll.register(listener, select.EPOLLIN)
        times = [self._accept_from] if self._accept_from else []
        for connection in list(self._connections.values()):
            if connection.deadline <= now:
                self._drop(epoll, connection, connection.overdue)
            else:
                times.append(connection.deadline)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _pause(self, epoll: select.epoll, listener: socket.socket, error: OSError) -> None:
        """Without a descriptor the listener would be ready for ever and the loop spin."""
        _log.warning("the scrape endpoint takes no connection for %g s: %s", _PAUSE, error.strerror)
        epoll.unregister(listener)
        self._accept_from = time.monotonic() + _PAUSE

    def _drop(self, epoll: select.epoll, connection: Connection, cause: str = "") -> None:
        epoll.unregister(connection.socket)
        del self._connections[connection.socket.fileno()]
        self._telemetry.set(HTTP_CONNECTIONS, len(self._connections))
        if cause:
            self._telemetry.add(HTTP_REJECTED, 1, {ERROR_TYPE: cause})
        connection.socket.close()
