"""Text to value: the same rules for a flag, a variable and the file.

The file's scalars arrive as text too (file.py), so ``stats: off`` and ``listen: 9464`` mean what they say,
and not what YAML 1.1 takes them for.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec

from otel_hostmetrics.config.schema import HIDDEN, ConfigError, Given, Key
from otel_hostmetrics.settings import Seconds, decode_hook

_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # beside true, false, 1, 0, which msgspec knows
_LEAST, _MOST = 0.001, 7 * 86_400  # seconds: below, the agent would do nothing else; above, it would never act
_MOST_SHOWN = 60
_WORDS = (
    (r"^Expected int\b", "expected a whole number"),
    (r"^Expected float\b", "expected a number"),
    (r"^Expected object\b", "expected names with a value each"),
    (r" >= (\d+)(\.0)?$", r", at least \1"),
    (r" <= (\d+)(\.0)?$", r", at most \1"),
)  # for msgspec's terms


def convert(key: Key, given: Given) -> object:
    """*given* as the key's type. Raises ConfigError naming the key, what was expected, what was got and its origin."""
    try:
        value: object = msgspec.convert(_prepared(key, given.raw), key.type, strict=False, dec_hook=decode_hook)
        _check(value)
    except (msgspec.ValidationError, ValueError) as error:
        got = HIDDEN if key.secret else _shown(given.raw)
        raise ConfigError(key.name, f"{_expected(key, str(error))}, got {got}", given.origin) from None
    _check_not_hidden(key, value, given.origin)
    return _folded(value) if key.name == "otlp.headers" and isinstance(value, dict) else value


def _check_not_hidden(key: Key, value: object, origin: str) -> None:
    """What ``config show`` printed is a file to start from, but for its secrets."""
    if key.secret and isinstance(value, dict):
        for name in (name for name, text in value.items() if text == HIDDEN):
            raise ConfigError(key.name, f"expected the value of {name!r}, not the {HIDDEN} that `config show` has in its place", origin)


def _folded(headers: dict[str, str]) -> dict[str, str]:
    """Names know no case: whichever layer is stronger replaces the header, however it is written."""
    return {name.strip().lower(): value for name, value in headers.items()}


def pairs(text: str) -> dict[str, str]:
    """``k=v,k=v``, percent-encoded: the form of OTEL_EXPORTER_OTLP_HEADERS and OTEL_RESOURCE_ATTRIBUTES (W3C Baggage).

    Raises ValueError if a pair has no name or no ``=``, or does not decode to UTF-8.
    """
    found = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ValueError("expected NAME=VALUE,NAME=VALUE, percent-encoded")
        found[unquote(name.strip(), errors="strict")] = unquote(value.strip(), errors="strict")
    return found


def _prepared(key: Key, raw: object) -> object:
    if key.is_list:
        return _listed(raw)
    if not isinstance(raw, str):
        return raw
    text = raw.strip()
    if key.is_mapping:
        return pairs(text)
    if key.is_optional and text.lower() in ("", "~", "null"):
        return None
    return _BOOLEANS.get(text.lower(), text) if key.is_bool else text


def _listed(raw: object) -> object:
    """A repeated flag, a YAML list or one text: commas separate in each."""
    items = [raw] if isinstance(raw, str) else raw
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError("expected a list of names")
    return [name for item in items for name in map(str.strip, item.split(",")) if name]


def _check(value: object) -> None:
    if isinstance(value, Seconds) and not _LEAST <= value <= _MOST:
        raise ValueError("expected a duration from 1ms to 7 days")
    for text in _texts(value):
        # Neither a path nor a header can hold NUL; what is not UTF-8 cannot be handed over as JSON.
        if "\0" in text or not _encodable(text):
            raise ValueError("expected UTF-8 text without NUL")


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, tuple):
        return [*value]
    return [*value, *value.values()] if isinstance(value, dict) else []


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _expected(key: Key, message: str) -> str:
    """Of msgspec's message, the part that says what would have been right."""
    if key.choices:
        return f"expected one of {', '.join(key.choices)}"
    if key.is_bool:
        return "expected true or false"
    wanted = re.sub(r"(, got .*)?( - at `.*`)?$", "", message.replace("`", ""), flags=re.DOTALL)
    for term, word in _WORDS:
        wanted = re.sub(term, word, wanted)
    return wanted[:1].lower() + wanted[1:]


def _shown(raw: object) -> str:
    """Never the repr of a list or mapping: YAML aliases make one that prints to gigabytes."""
    if isinstance(raw, str):
        return repr(raw if len(raw) <= _MOST_SHOWN else raw[:_MOST_SHOWN] + "...")
    return "a list" if isinstance(raw, list) else "a mapping"
