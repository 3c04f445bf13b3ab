"""The keys there are, derived from the settings' structs, and the one error that a configuration can have."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

import msgspec

from otel_hostmetrics.settings import Settings

HIDDEN = "***"  # in the place of a secret


class ConfigError(Exception):
    """What is wrong with one key, file or variable, on one line. The front prints it and exits with 78 (EX_CONFIG)."""

    def __init__(self, what: str, problem: str, origin: str = "") -> None:
        super().__init__(_one_line(f"{what}: {problem}{f' (from {origin})' if origin else ''}"))


class Given(NamedTuple):
    """A value as somebody wrote it: text, or what YAML made of it (str, list, dict)."""

    raw: object
    origin: str  # "--interval", "environment OTEL_HOSTMETRICS_GENERAL__INTERVAL", "/etc/otel-hostmetrics.yaml"


Layer: TypeAlias = dict[str, Given]  # by key, such as "prometheus.listen"


class Key(NamedTuple):
    """One setting."""

    name: str
    type: Any  # as annotated in the struct, constraints included: what msgspec.convert() takes
    default: object
    description: str

    @property
    def secret(self) -> bool:
        """Never shown: not by ``config show``, not in an error."""
        return self.name == "otlp.headers"

    @property
    def plain(self) -> Any:
        """The type without its annotation."""
        return get_args(self.type)[0] if get_origin(self.type) is Annotated else self.type

    @property
    def is_list(self) -> bool:
        return get_origin(self.plain) is tuple

    @property
    def is_mapping(self) -> bool:
        return get_origin(self.plain) is dict

    @property
    def is_bool(self) -> bool:
        return self.plain is bool or bool in get_args(self.plain)

    @property
    def is_optional(self) -> bool:
        return get_origin(self.plain) in (Union, types.UnionType) and type(None) in get_args(self.plain)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a Literal; empty for any other type."""
        return get_args(self.plain) if get_origin(self.plain) is Literal else ()


def _keys() -> Iterator[Key]:
    defaults = Settings()
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            default = getattr(getattr(defaults, section.name), field.name)
            yield Key(f"{section.name}.{field.name}", field.type, default, _description(field.type))


def _description(annotated: Any) -> str:
    metas = getattr(annotated, "__metadata__", ())
    return " ".join(meta.description for meta in metas if isinstance(meta, msgspec.Meta) and meta.description)


SECTIONS: dict[str, type[msgspec.Struct]] = {field.name: field.type for field in msgspec.structs.fields(Settings)}
KEYS: dict[str, Key] = {key.name: key for key in _keys()}

# What the RDMA monitor this agent replaces called the same thing (its config.yaml and RDMA_MON_* variables).
RENAMED = {
    "general.poll_interval": "general.interval",
    "general.snapshot_interval": "snapshots.interval",
    "general.snapshot_dir": "snapshots.directory",
    "prometheus.port": "prometheus.listen",
    "prometheus.enabled": "prometheus.listen",
    "network.mode": "rdma.mode",
    "network.devices": "rdma.devices",
}


def known(name: str, origin: str) -> Key:
    """The key of that name. Raises ConfigError, with the nearest one there is."""
    key = KEYS.get(name)
    if key is None:
        raise unknown(name, origin)
    return key


def unknown(name: str, origin: str) -> ConfigError:
    """The error for a key or section that does not exist."""
    name = name[:100]
    leaf = name.rpartition(".")[2]
    among = [*KEYS] if "." in name else [*SECTIONS]
    candidates = [
        *(new for old, new in RENAMED.items() if old == name),
        *(key for key in KEYS if key.replace(".", "_") == name),  # a variable with one underscore too few
        *difflib.get_close_matches(name, among, n=1, cutoff=0.8),
        *(key for key in KEYS if key.endswith(f".{leaf}")),
        *difflib.get_close_matches(name, among, n=1),
    ]
    return ConfigError(name, f"unknown key{f', did you mean {candidates[0]}?' if candidates else ''}", origin)


def _one_line(text: str) -> str:
    """Control characters and lone surrogates escaped: a key of a file can hold anything."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
