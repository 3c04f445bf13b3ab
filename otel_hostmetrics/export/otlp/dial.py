"""From the endpoint to a connected stream: names to addresses, unix sockets, a proxy, TLS."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import socket
import time
from collections.abc import Mapping

from otel_hostmetrics.export.otlp import channel
from otel_hostmetrics.export.otlp.proxy import proxy_of
from otel_hostmetrics.export.otlp.stream import Stream, Waker, wait
from otel_hostmetrics.settings import Otlp

_Address = tuple[socket.AddressFamily, str | tuple[object, ...]]


class Dialer:
    """Connects to the collector of *settings*, as often as asked."""

    def __init__(self, settings: Otlp, waker: Waker, environ: Mapping[str, str]) -> None:
        """*environ* may name a proxy. Raises ValueError or Unavailable, in one line, if the settings cannot work."""
        self._settings = settings
        self._waker = waker
        self.target = channel.target(settings)
        self._path, self._host, self._port = _place(self.target.name)
        self.authority = _authority(self._host, self._port) if self._host else "localhost"  # servers in Go refuse a path
        self._proxy = None if self._path else proxy_of(self._host, environ)
        self._check_tls()

    def _check_tls(self) -> None:
        if bool(self._settings.cert_file) != bool(self._settings.key_file):
            raise ValueError("otlp: cert_file and key_file go together; only one of them is set")
        if self.target.tls:
            from otel_hostmetrics.export.otlp import tls

            tls.context(self._settings)

    def connect(self, deadline: float) -> Stream:
        """Raises OSError, TimeoutError, Cancelled; Unavailable or ValueError for a file of TLS that is being replaced."""
        sock = self._socket(deadline)
        try:
            if self._proxy:
                self._proxy.connect(Stream(sock, self._waker), self._host, self._port, deadline)
            if not self.target.tls:
                return Stream(sock, self._waker)
            from otel_hostmetrics.export.otlp import tls

            made = tls.context(self._settings)  # anew: certificates are renewed while we run
            return tls.TlsStream(sock, self._waker, made, self._host or "localhost", deadline)
        except BaseException:
            sock.close()
            raise

    def _socket(self, deadline: float) -> socket.socket:
        """Of the first address that answers."""
        addresses = self._addresses()
        problem = OSError(errno.EADDRNOTAVAIL, f"{self._host} has no address")
        for left, (family, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share = time.monotonic() + max(deadline - time.monotonic(), 0.0) / left
            try:
                return _connected(family, address, self._waker, share)
            except OSError as error:
                problem = error
        try:
            raise problem
        finally:
            del problem  # it and this frame would hold each other, and all that we are made of

    def _addresses(self) -> list[_Address]:
        """In the resolver's order; with dns: in any, so that the agents of a fleet spread over them."""
        if self._path:
            return [(socket.AF_UNIX, self._path)]
        host, port = (self._proxy.host, self._proxy.port) if self._proxy else (self._host, self._port)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses: list[_Address] = [(family, address) for family, _, _, _, address in found]
        if self.target.name.startswith("dns:"):
            random.shuffle(addresses)
        return addresses


def _place(name: str) -> tuple[str, str, int]:
    """(path of a socket, host, port) of a Target's name."""
    if name.startswith("unix:"):
        return name.removeprefix("unix:"), "", 0
    host, _, port = name.removeprefix("dns:///").rpartition(":")
    return "", host.strip("[]"), int(port)


def _authority(host: str, port: int) -> str:
    """Without an address's zone, which is of this host only (RFC 6874, 4)."""
    return f"[{host.partition('%')[0]}]:{port}" if ":" in host else f"{host}:{port}"


def _connected(family: socket.AddressFamily, address: str | tuple[object, ...], waker: Waker, deadline: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        number = sock.connect_ex(address)
        if number == errno.EINPROGRESS:
            wait(sock, select.POLLOUT, waker, deadline)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
        if family != socket.AF_UNIX:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock
