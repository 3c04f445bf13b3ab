"""The program's own messages: one line each on standard error, as logfmt or JSON.

Under systemd, where standard error is the journal, a line begins with its priority as ``<N>`` (sd-daemon(3)). The
journal is recognised as systemd.exec(5) asks: JOURNAL_STREAM must name the very stream that is open, since children
inherit the variable but may write elsewhere.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import msgspec

from otel_hostmetrics.settings import Log

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:+@%")  # needs no quotes in logfmt
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))  # syslog(3)


def setup(settings: Log, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Send everything of at least ``log.level`` to *stream* (standard error), replacing what an earlier call set up."""
    stream = stream or sys.stderr
    render = _json if settings.format == "json" else _logfmt
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(render, is_journal(stream, environ)))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether *stream* is the journal's socket."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class _Formatter(logging.Formatter):
    def __init__(self, render: Callable[[dict[str, Any]], str], journal: bool) -> None:
        super().__init__()
        self._render = render
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        line = self._render(_fields(record, self.formatException))
        return f"<{_priority(record.levelno)}>{line}" if self._journal else line


def _fields(record: logging.LogRecord, traceback: Callable[[Any], str]) -> dict[str, Any]:
    """Time, level, logger and message; then what was passed as ``extra``; then the traceback, if any."""
    milliseconds = int(record.created * 1000) % 1000
    fields: dict[str, Any] = {
        "ts": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{milliseconds:03}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "msg": record.getMessage(),
    }
    fields |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    if record.exc_info:
        fields["exception"] = traceback(record.exc_info)
    return fields


def _priority(level: int) -> int:
    return next(priority for least, priority in _PRIORITIES if level >= least)


def _logfmt(fields: dict[str, Any]) -> str:
    return " ".join(f"{name}={_quoted(str(value))}" for name, value in fields.items())


def _quoted(text: str) -> str:
    """As it is where it is one plain word, else in double quotes and on one line whatever it holds."""
    if text and _BARE.issuperset(text):
        return text
    text = text.translate(_ESCAPES)
    return '"' + (text if text.isprintable() else "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)) + '"'


def _json(fields: dict[str, Any]) -> str:
    clean = {name: value if isinstance(value, (int, float)) else _valid(str(value)) for name, value in fields.items()}
    return msgspec.json.encode(clean).decode()


def _valid(text: str) -> str:
    """Lone surrogates, as in undecodable file names, cannot be encoded: escape them."""
    return text.encode("utf-8", "backslashreplace").decode()
