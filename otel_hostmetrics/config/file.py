"""The YAML file."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from otel_hostmetrics.config.schema import SECTIONS, ConfigError, Given, Layer, known, unknown

_MOST_BYTES = 256 << 10


class _Loader(yaml.BaseLoader):
    """Text, lists and mappings only: what type a scalar has is the settings' business, not YAML 1.1's.

    Pure Python on purpose: libyaml's binding recurses on the C stack, so deep nesting would crash instead of raise.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key given twice, of which YAML libraries silently keep the last."""
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            names = [key.value for key, _ in node.value]
            twice = next((name for name in names if names.count(name) > 1), "a key")
            raise yaml.constructor.ConstructorError(None, None, f"{twice} is given twice", node.start_mark)
        return mapping


def read(path: str) -> Layer:
    """The keys of the file. Raises ConfigError if it cannot be read, is not YAML, or has a key that does not exist."""
    document = _document(path)
    layer: Layer = {}
    for section, body in document.items():
        if section not in SECTIONS:
            raise unknown(section, path)
        for name, raw in _mapping(body, section, path).items():
            layer[known(f"{section}.{name}", path).name] = Given(raw, path)
    return layer


def _document(path: str) -> dict[str, Any]:
    try:
        return _mapping(yaml.load(_text(path), _Loader), path, "--config")  # noqa: S506 - text, lists and mappings only
    except yaml.YAMLError as error:
        raise ConfigError(path, f"not YAML: {_problem(error)}", "--config") from None
    except RecursionError:
        raise ConfigError(path, "not YAML: nested too deeply", "--config") from None


def _text(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}", "--config") from None
    if len(content) > _MOST_BYTES:
        raise ConfigError(path, f"larger than {_MOST_BYTES >> 10} KiB", "--config")
    return content


def _mapping(body: object, what: str, origin: str) -> dict[str, Any]:
    """*body*, where nothing at all is an empty mapping."""
    if body is None or body == "":
        return {}
    if not isinstance(body, dict):
        raise ConfigError(what, "expected a mapping of keys", origin)
    return body


def _problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + str(getattr(error, "problem", None) or getattr(error, "reason", None) or "malformed")
