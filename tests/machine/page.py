"""A Prometheus page as a table, with the values as they are written: a 64-bit counter does not fit a float."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Labels: TypeAlias = frozenset[tuple[str, str]]
Page: TypeAlias = Mapping[str, Mapping[Labels, str]]


def parse(text: str) -> Page:
    """Sample name -> labels -> value. Escapes in label values stay as they are."""
    page: dict[str, dict[Labels, str]] = {}
    for name, labels, value in _SAMPLE.findall(text):
        page.setdefault(name, {})[frozenset(_LABEL.findall(labels))] = value
    return page


def by(page: Page, name: str, *labels: str, **fixed: str) -> dict[tuple[str, ...], str]:
    """The samples *name* that have the labels *fixed*, by the values of the labels named in *labels*."""
    wanted = set(fixed.items())
    rows = ((dict(found), value) for found, value in page.get(name, {}).items() if wanted <= found)
    return {tuple(row.get(label, "") for label in labels): value for row, value in rows}
