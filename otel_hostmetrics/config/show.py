"""The settings in effect, as a YAML file that says where each value came from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from otel_hostmetrics.config.resolve import Resolved
from otel_hostmetrics.config.schema import HIDDEN, KEYS, SECTIONS, Key
from otel_hostmetrics.settings import Seconds, Settings

_PLAIN = re.compile(r"[A-Za-z/][\w./-]*", re.ASCII)


def show(resolved: Resolved) -> str:
    """A configuration file that gives the same settings, except for secrets, whose values are ``***``."""
    lines = []
    for section in SECTIONS:
        lines.append(f"{section}:")
        lines += [_line(key, resolved) for key in KEYS.values() if key.name.startswith(f"{section}.")]
    return "\n".join(lines) + "\n"


def value_of(settings: Settings, name: str) -> object:
    """The value of a key such as ``prometheus.listen``."""
    section, _, field = name.partition(".")
    return getattr(getattr(settings, section), field)


def _line(key: Key, resolved: Resolved) -> str:
    value = value_of(resolved.settings, key.name)
    if key.secret and isinstance(value, Mapping):
        value = dict.fromkeys(value, HIDDEN)
    setting = f"  {key.name.partition('.')[2]}: {_yaml(value)}"
    return f"{setting:<48} # {_comment(resolved.origins[key.name])}"


def _yaml(value: object) -> str:
    """JSON is YAML; what needs no quotes gets none."""
    if isinstance(value, Seconds):
        return str(value)
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value != "null":
        return value
    return json.dumps(value)


def _comment(origin: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in origin)
