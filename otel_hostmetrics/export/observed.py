"""What third parties hand over, in the types that every exporter takes: exact ints, floats and strings.

A subclass may print as something else: ``repr(numpy.float64(1))`` on a page would cost the whole scrape.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from operator import index
from typing import Any

from opentelemetry.metrics import Observation

from otel_hostmetrics.catalogue.model import Attributes, Number

Key = frozenset[tuple[str, object]]
_LARGEST = int(sys.float_info.max)  # beyond, no exporter can do anything with an int


class NotAllowed(TypeError):
    """What OpenTelemetry does not allow to be observed or recorded."""


def observation(one: Observation) -> tuple[Attributes, Number]:
    """Raises NotAllowed for what is none."""
    if not isinstance(one, Observation):
        raise NotAllowed(f"{shown(one)} is not an Observation")
    return attributes(one.attributes), number(one.value)


def observations(found: object) -> Iterable[Observation]:
    """What a callback returned. Raises NotAllowed if it cannot be iterated over."""
    if not isinstance(found, Iterable):
        raise NotAllowed(f"it returned {shown(found)}, not Observations")
    return found


def number(value: Any) -> Number:
    """An int or a float of anything that is one, such as numpy's. Raises NotAllowed for the rest, text among it."""
    if type(value) is float or (type(value) is int and -_LARGEST <= value <= _LARGEST):
        return value
    for name, plain in (("__index__", index), ("__float__", float)):
        found = _converted(value, plain) if hasattr(type(value), name) else None
        if isinstance(found, float):
            return found
        if found is not None and -_LARGEST <= found <= _LARGEST:
            return int(found)  # a bool is an index as it is
    raise NotAllowed(f"{shown(value)} is not a number that a double can hold")


def _converted(value: Any, plain: Callable[[Any], Number]) -> Number | None:
    """An array has both methods, and only the one works that suits what is in it."""
    try:
        return plain(value)
    except Exception:
        return None


def attributes(given: Mapping[str, Any] | None) -> Attributes:
    """A copy. Raises NotAllowed for attributes that OpenTelemetry does not allow on a metric."""
    if not given:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise NotAllowed(f"{shown(given)} are not attributes")
    return {str.__str__(name): _value(name, value) for name, value in given.items()}


def key(of: Attributes) -> Key:
    """The same for equal attributes."""
    return frozenset(of.items())


def shown(what: object) -> str:
    """In a message. A third party's repr() may do anything."""
    try:
        return f"{what!r:.99}"
    except Exception:
        return f"what cannot be shown, of {type(what)!r:.99}"


def _value(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return value
    for plain in (int, float):
        if isinstance(value, plain):
            return number(plain(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (list, tuple)) and not any(isinstance(item, (list, tuple)) for item in value):
        return tuple(_value(name, item) for item in value)
    raise NotAllowed(f"attribute {name!r} is a {type(value).__name__}, not text, a number, a boolean or a list of them")
