"""What a type cannot say: addresses, names of sources, files that must be there."""

from __future__ import annotations

import difflib
import importlib.util
import os
import sys
from collections.abc import Callable, Collection, Mapping

from otel_hostmetrics.config.schema import ConfigError
from otel_hostmetrics.export.otlp.channel import metadata, parse
from otel_hostmetrics.export.prometheus.address import parse_listen
from otel_hostmetrics.settings import Settings

_Wrong = Callable[[str, str], ConfigError]
_PEM, _MOST_PEM = b"-----BEGIN ", 1 << 20


def check(
    settings: Settings, origins: Mapping[str, str], sources: Callable[[], Collection[str]], plugins: Callable[[], Collection[str]]
) -> None:
    """Raise ConfigError for the first thing wrong."""

    def wrong(key: str, problem: str) -> ConfigError:
        return ConfigError(key, problem, origins[key])

    _check_directories(settings, wrong)
    _check_addresses(settings, wrong)
    _check_tls(settings, wrong)
    _check_sources(settings, sources, wrong)
    _check_plugins(settings, plugins, wrong)


def _check_directories(settings: Settings, wrong: _Wrong) -> None:
    """A misspelt root is not a host on which everything is absent."""
    for key, path in (("root", settings.path.root), ("procfs", settings.path.procfs), ("sysfs", settings.path.sysfs)):
        if path and not os.path.isdir(path):
            raise wrong(f"path.{key}", f"{path} is not a directory, or not one that this user can reach")


def _check_addresses(settings: Settings, wrong: _Wrong) -> None:
    """By the rules of the exporters themselves."""
    otlp, listen = settings.otlp, settings.prometheus.listen
    try:
        key = "prometheus.listen"
        if listen:
            parse_listen(listen)
        key = "otlp.endpoint"
        if otlp.endpoint:
            parse(otlp.endpoint, otlp.insecure, bool(otlp.ca_file or otlp.cert_file))
        key = "otlp.headers"
        metadata(otlp.headers)
    except ValueError as error:
        raise wrong(key, str(error).removeprefix(f"{key}: ")) from None


def _check_tls(settings: Settings, wrong: _Wrong) -> None:
    otlp = settings.otlp
    for key, path in (("ca_file", otlp.ca_file), ("cert_file", otlp.cert_file), ("key_file", otlp.key_file)):
        try:
            if path and not _may_be_pem(path):
                raise wrong(f"otlp.{key}", f"{path} is not PEM: it has no line {_PEM.decode()}...")
        except OSError as error:
            raise wrong(f"otlp.{key}", f"cannot read {path}: {error.strerror}") from None
    if bool(otlp.cert_file) != bool(otlp.key_file):
        there, missing = ("cert_file", "key_file") if otlp.cert_file else ("key_file", "cert_file")
        raise wrong(f"otlp.{there}", f"a client certificate needs both: otlp.{missing} is not set")


def _may_be_pem(path: str) -> bool:
    """OpenSSL says of a file in another form only that it has no certificate. Raises OSError."""
    with open(path, "rb") as file:
        return not os.path.isfile(path) or _PEM in file.read(_MOST_PEM)


def _check_sources(settings: Settings, sources: Callable[[], Collection[str]], wrong: _Wrong) -> None:
    general = settings.general
    if not general.sources and not general.no_sources:
        return
    names = sorted(sources())
    for key, given in (("general.sources", general.sources), ("general.no_sources", general.no_sources)):
        for name in given:
            if name not in names:
                raise wrong(key, f"unknown source {name[:60]!r}, {_meant(name, names)}")


def _check_plugins(settings: Settings, plugins: Callable[[], Collection[str]], wrong: _Wrong) -> None:
    wanted = [name for name in settings.general.plugins if name != "*"]
    names = sorted(plugins()) if wanted else []
    for name in wanted:
        if name not in names:
            cure = _meant(name, names) if names else f"nor is any other: install it with {_installer()}"
            raise wrong("general.plugins", f"plugin {name[:60]!r} is not installed, {cure}")


def _installer() -> str:
    """uv leaves pip out of the environments it makes."""
    return f"{sys.executable} -m pip" if importlib.util.find_spec("pip") else f"uv pip install --python {sys.executable}"


def _meant(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name[:60], names, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
