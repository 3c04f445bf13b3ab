"""The command line's options that set a key: each is here once, and its help text is the setting's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from otel_hostmetrics.config.schema import KEYS, Given, Key, Layer


class Flag(NamedTuple):
    """One option. One that sets a list can be repeated."""

    names: tuple[str, ...]
    key_name: str
    metavar: str
    group: str

    @property
    def key(self) -> Key:
        return KEYS[self.key_name]

    @property
    def parameter(self) -> str:
        """The name of the commands' argument."""
        return self.key_name.replace(".", "_")


_WHAT, _WHERE, _TO, _LOG = "What is collected", "Where the host is", "Where it goes", "Messages"

FLAGS = (
    Flag(("--interval",), "general.interval", "DURATION", _WHAT),
    Flag(("--sources",), "general.sources", "NAME,...", _WHAT),
    Flag(("--no-source",), "general.no_sources", "NAME,...", _WHAT),
    Flag(("--plugin",), "general.plugins", "NAME,...", _WHAT),
    Flag(("--include",), "general.include", "PATTERN,...", _WHAT),
    Flag(("--exclude",), "general.exclude", "PATTERN,...", _WHAT),
    Flag(("--energy-source",), "rapl.energy_source", "auto|powercap|perf|hwmon|msr|off", _WHAT),
    Flag(("--root",), "path.root", "DIR", _WHERE),
    Flag(("--path.procfs",), "path.procfs", "DIR", _WHERE),
    Flag(("--path.sysfs",), "path.sysfs", "DIR", _WHERE),
    Flag(("--otlp-grpc", "--otel-grpc"), "otlp.endpoint", "HOST:PORT", _TO),
    Flag(("--prometheus",), "prometheus.listen", "[HOST:]PORT", _TO),
    Flag(("--snapshot-dir",), "snapshots.directory", "DIR", _TO),
    Flag(("--pipeline",), "general.pipeline", "native|sdk", _TO),
    Flag(("--log-level",), "log.level", "debug|info|warning|error", _LOG),
    Flag(("--log-format",), "log.format", "logfmt|json", _LOG),
)


def layer(arguments: Mapping[str, object], weaker: Layer | None = None) -> Layer:
    """What the arguments of a command set, over *weaker*: the options before the command's name. Lists add up."""
    merged: Layer = dict(weaker or {})
    for flag in FLAGS:
        raw = arguments.get(flag.parameter)
        if raw is None:
            continue
        before = merged.get(flag.key_name)
        if isinstance(raw, list) and before and isinstance(before.raw, list):
            raw = [*before.raw, *raw]
        merged[flag.key_name] = Given(raw, flag.names[0])
    return merged
