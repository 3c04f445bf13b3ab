"""What every section is made of, and durations."""

from __future__ import annotations

import re

import msgspec

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


class Seconds(float):
    """A duration: a number of seconds, or ``500ms``, ``10s``, ``5m``, ``1h``."""

    @classmethod
    def parse(cls, text: str) -> Seconds:
        """Raises ValueError on anything else, on zero and on less."""
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|)\s*", text)
        if match is None:
            raise ValueError(f"expected a duration such as 500ms, 10s or 5m, got {text!r}")
        if float(match[1]) <= 0:
            raise ValueError(f"expected a duration above zero, got {text!r}")
        return cls(float(match[1]) * _UNITS[match[2]])

    def __str__(self) -> str:
        return f"{float(self)!r}s".replace(".0s", "s")  # exact: parse() gives the same value back


def decode_hook(type_: type, value: object) -> object:
    """msgspec's ``dec_hook`` for this module's own types."""
    if type_ is Seconds:
        return Seconds.parse(str(value) if not isinstance(value, bool) else "bool")
    raise NotImplementedError(type_)  # msgspec's protocol for "not mine"


def encode_hook(value: object) -> object:
    """msgspec's ``enc_hook`` for this module's own types."""
    if isinstance(value, Seconds):
        return str(value)
    raise NotImplementedError(type(value))


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration; an unknown key is an error, never ignored."""
