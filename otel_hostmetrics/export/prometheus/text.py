"""Batch -> the page Prometheus scrapes.

Formats: text 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats) and OpenMetrics 1.0 (its specification text).
Their sample lines are the same; what comes before them is not. A set of series is compiled once to one bytes template and
filled with ``%`` every time: 0.1 us a point, against 20 us for the stock reader.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import TypeAlias

from otel_hostmetrics.catalogue import CATALOGUE
from otel_hostmetrics.catalogue.model import Attributes, AttributeValue, Kind, Metric, Number, Scope, Series
from otel_hostmetrics.export.prometheus.labels import braced
from otel_hostmetrics.export.prometheus.naming import metric_name, unit_name
from otel_hostmetrics.model import Batch, Distribution

_log = logging.getLogger(__name__)


class Format(enum.Enum):
    """What a scraper can ask for, by content type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    def __init__(self, content_type: str) -> None:
        self.content_type = content_type  # as ``value``, which is a call of Python code; so is a member's hash


_TYPES = {Kind.COUNTER: "counter", Kind.UPDOWNCOUNTER: "gauge", Kind.GAUGE: "gauge", Kind.HISTOGRAM: "histogram"}
# Sample names a type reserves, after the family's own (OpenMetrics 1.0, "Suffixes"). No two families may share one.
_SUFFIXES = {
    "counter": ("", "_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
    "info": ("", "_info"),
}


class _Block:
    """One family of the page: what is written above its samples. *family* is the OpenMetrics name, without ``_total``."""

    def __init__(self, name: str, family: str, type_: str, unit: str, description: str) -> None:
        self.name = name
        self.family = family
        self.type = type_
        text_type = "gauge" if type_ == "info" else type_
        self.text = _head(name, text_type, "", _escape(description))
        unit = unit if family.endswith(f"_{unit}") else ""
        self.openmetrics = _head(family, type_, unit, _escape(description).replace('"', r"\""))


class _Numbers:
    """The lines of one column of numbers."""

    def __init__(self, name: str, integer: bool, series: tuple[Series, ...], labels: Sequence[bytes]) -> None:
        self.series = series
        self._integer = integer
        value = b" %d\n" if integer else b" %a\n"  # %d is bytes' fast path for int; %a is repr()
        start = name.encode()
        self._template = start + (value + start).join(label.replace(b"%", b"%%") for label in labels) + value
        self._values: Sequence[Number] = ()  # of the last page, if they cannot be changed
        self._lines = b""  # theirs, once they were the same twice

    def fill(self, values: Sequence[Number]) -> bytes:
        """Settings and facts are the very same tuple in most cycles."""
        again = values is self._values
        if again and self._lines:
            return self._lines
        total = sum(values)
        plain = isinstance(total, int) if self._integer else total - total == 0  # inf - inf and nan - nan are nan
        lines = self._template % tuple(values) if plain else self._odd(values)
        self._values, self._lines = (values, lines if again else b"") if isinstance(values, tuple) else ((), b"")
        return lines

    def _odd(self, values: Sequence[Number]) -> bytes:
        """What is not of the metric's type, or not finite."""
        spelled = self._template.replace(b" %d\n", b" %b\n").replace(b" %a\n", b" %b\n")  # a label has no raw newline
        return spelled % tuple(map(_number, values))


class _Histograms:
    """The lines of one column of distributions."""

    def __init__(self, name: str, boundaries: Sequence[float], series: tuple[Series, ...], labels: Sequence[bytes]) -> None:
        self.series = series
        bounds = [*map(boundary, boundaries), "+Inf"]
        self._template = b"".join(_histogram(name, bounds, label.replace(b"%", b"%%")) for label in labels)

    def fill(self, values: Sequence[Distribution]) -> bytes:
        fields: list[int | bytes] = []
        for value in values:
            fields += accumulate(value.counts)
            fields += (_number(value.sum), value.total)
        return self._template % tuple(fields)


_Template: TypeAlias = _Numbers | _Histograms


class Page:
    """Renders batches for one resource. Keeps what it compiled for the series of the last batch; for one thread.

    Points of third parties have their scope as labels (OpenTelemetry specification, "Prometheus and OpenMetrics
    Compatibility", instrumentation scope); on our own, its option not to is taken.
    *workload_labels* are shell patterns: which attributes of a workload become labels of its points.
    """

    def __init__(self, resource: Attributes, workload_labels: Sequence[str] = ("*",)) -> None:
        self._workload_labels = workload_labels
        target = _Block("target_info", "target", "info", "", "Attributes of the resource the metrics belong to.")
        sample = b"target_info" + braced(resource) + b" 1\n"
        self._begin = [head + sample if resource else b"" for head in (target.text, target.openmetrics)]
        self._blocks: dict[Metric, _Block | None] = {}  # None: refused
        self._taken = {target.family + suffix: target for suffix in _SUFFIXES[target.type]}
        self._series: list[tuple[Series, ...]] = []  # of the last batch's columns
        self._places: list[tuple[_Block | None, _Template, int]] = []  # (of the first of a block: the block, template, which column)
        self._templates: dict[tuple[Metric, int], _Template] = {}
        self._labels: dict[Series, bytes] = {}
        self._broken: set[Metric] = set()
        self._reserved = False

    def render(self, batch: Batch, form: Format) -> bytes:
        """The whole page. Metrics whose names meet in Prometheus share a block if their types agree, else the later is left off."""
        columns = [column for family in batch.families for _, column in family.columns]
        series = [column.series for column in columns]
        if series != self._series:  # quick, as most are the same objects
            self._arrange([family.metric for family in batch.families for _ in family.columns], series)
        openmetrics = form is Format.OPENMETRICS
        parts = [self._begin[openmetrics]]
        for block, template, number in self._places:
            if block:
                parts.append(block.openmetrics if openmetrics else block.text)
            try:
                parts.append(template.fill(columns[number].values))  # type: ignore[arg-type]  # the metric's kind chose the class
            except (TypeError, ValueError, AttributeError) as error:
                self._leave_off(template.series[0].metric, error)
        return b"".join(parts) + (b"# EOF\n" if openmetrics else b"")

    def _arrange(self, metrics: list[Metric], series: list[tuple[Series, ...]]) -> None:
        """Other series than in the last batch: find the place of each column."""
        blocks: dict[_Block, list[tuple[_Template, int]]] = {}
        live: dict[tuple[Metric, int], _Template] = {}
        for number, (metric, those) in enumerate(zip(metrics, series, strict=True)):
            if those and (block := self._block(metric)):
                key = metric, id(those)  # the template holds the tuple, so its id stays its own
                live[key] = self._templates.get(key) or self._compile(block, metric, those)
                blocks.setdefault(block, []).append((live[key], number))
        self._places = [(None if place else block, *each) for block, members in blocks.items() for place, each in enumerate(members)]
        self._series, self._templates = series, live
        self._labels = {one: self._labels[one] for template in live.values() for one in template.series}

    def _block(self, metric: Metric) -> _Block | None:
        if metric not in self._blocks:
            if metric.scope is not None:
                self._reserve()
            try:
                self._blocks[metric] = self._claim(metric)
            except ValueError as error:
                _log.warning("left off the Prometheus page: %s", error)
                self._blocks[metric] = None
        return self._blocks[metric]

    def _reserve(self) -> None:
        """The catalogue's names are its own, with points or without: a third party must not cost them their place."""
        rows = () if self._reserved else CATALOGUE
        self._reserved = True
        for row in rows:
            self._block(row)

    def _claim(self, metric: Metric) -> _Block:
        """The block *metric* belongs to. Raises ValueError if it can have none."""
        name, type_ = metric_name(metric.name, metric.unit, metric.kind), _TYPES[metric.kind]
        family = name.removesuffix("_total") if type_ == "counter" else name
        if type_ == "counter" and family == name:
            raise ValueError(f"counter {metric.name!r} has no name besides 'total'")
        names = [family + suffix for suffix in _SUFFIXES[type_]]
        other = next((self._taken[taken] for taken in names if taken in self._taken), None)
        if other is None:
            other = _Block(name, family, type_, unit_name(metric.unit), metric.description)
            self._taken.update(dict.fromkeys(names, other))
        if (other.name, other.type) != (name, type_):
            raise ValueError(f"{metric.name}: its name, {type_} {name}, meets the {other.type} {other.name}")
        return other

    def _compile(self, block: _Block, metric: Metric, series: tuple[Series, ...]) -> _Template:
        known = self._labels
        histogram = metric.kind is Kind.HISTOGRAM
        scope = _scope_labels(metric.scope) if metric.scope else {}
        for one in series:
            if one not in known:
                attributes = {**one.attributes, **scope} if scope else one.attributes
                known[one] = braced(attributes, one.resource and self._chosen(one.resource), le=histogram)
        labels = [known[one] for one in series]
        if histogram:
            return _Histograms(block.name, metric.boundaries, series, labels)
        return _Numbers(block.name, metric.integer, series, labels)

    def _chosen(self, workload: Attributes) -> Attributes:
        return {key: value for key, value in workload.items() if any(fnmatchcase(key, pattern) for pattern in self._workload_labels)}

    def _leave_off(self, metric: Metric, error: Exception) -> None:
        """One column that does not fit its series must not cost the page."""
        if metric not in self._broken:
            self._broken.add(metric)
            _log.error("%s left off the Prometheus page: %s", metric.name, error)


def _scope_labels(scope: Scope) -> dict[str, AttributeValue]:
    """What is empty is no label: to Prometheus the same."""
    given = {**dict(scope.attributes), "name": scope.name, "version": scope.version, "schema_url": scope.schema_url}
    return {f"otel_scope_{key}": value for key, value in given.items() if value != ""}


def boundary(value: float) -> str:
    """A bucket's ``le`` as OpenMetrics 1.0 wants it ("Considerations: Canonical Numbers"): ``0.005``, ``1.0``, ``1e+06``.

    The same in 0.0.4, as the Python client does; Prometheus 3 turns both spellings into this one.
    """
    text = repr(float(value))
    if abs(value) < 1e6:
        return text
    digits = text.lstrip("-").partition("e")[0].replace(".", "").rstrip("0")
    return f"{value:.{max(len(digits) - 1, 0)}e}"


def _histogram(name: str, bounds: Sequence[str], labels: bytes) -> bytes:
    inner = labels[1:-1].decode() + "," if labels else ""
    buckets = [f'{name}_bucket{{{inner}le="{bound}"}} %d\n' for bound in bounds]
    return "".join(buckets).encode() + b"%b_sum%b %%b\n%b_count%b %%d\n" % (name.encode(), labels, name.encode(), labels)


def _number(value: Number) -> bytes:
    if value - value == 0:
        return repr(value).encode() if not isinstance(value, bool) else b"%d" % value
    return b"NaN" if value != value else b"+Inf" if value > 0 else b"-Inf"  # noqa: PLR0124 - NaN is what differs from itself


def _head(name: str, type_: str, unit: str, help_text: str) -> bytes:
    lines = [f"# HELP {name} {help_text}\n" if help_text else "", f"# TYPE {name} {type_}\n", f"# UNIT {name} {unit}\n" if unit else ""]
    return "".join(lines).encode("utf-8", "replace")


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
