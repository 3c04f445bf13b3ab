"""Pages read back by prometheus_client's parsers and by promtool."""

from __future__ import annotations

import logging
import math
import os
import shutil
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_hostmetrics.catalogue import agent
from otel_hostmetrics.catalogue.model import Kind, Metric
from otel_hostmetrics.export.prometheus.naming import label_name, metric_name
from otel_hostmetrics.export.prometheus.text import Format, Page, boundary
from otel_hostmetrics.model import Column, Distribution
from tests.export.prometheus.batches import agent_batch, batch, column

RESOURCE = {"service.name": "agent", "host.name": 'a"b\\c\nd', "n": 3, "ok": True}
PARSERS = {Format.TEXT: parse_text, Format.OPENMETRICS: parse_openmetrics}
BOTH = pytest.mark.parametrize("form", list(Format), ids=["text", "openmetrics"])


def gauge(name: str, unit: str = "", description: str = "Something.", **more: object) -> Metric:
    return Metric(name, Kind.GAUGE, unit, description, "nothing", **more)


def parsed(page: bytes, form: Format) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """(sample name, labels) -> value of every sample; a duplicate fails."""
    found = {}
    for family in PARSERS[form](page.decode()):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def render(form: Format, *families: tuple[Metric, Column]) -> str:
    return Page({}).render(batch(*families), form).decode()


def test_a_page_in_text_format():
    size = Metric("bpf.map.size", Kind.COUNTER, "By", 'Size, "in" C:\\\nbytes.', "x", ("name",))
    page = Page({"service.name": "agent"}).render(batch((size, column(size, ({"name": "50%"}, 5)))), Format.TEXT)
    assert page.decode() == (
        "# HELP target_info Attributes of the resource the metrics belong to.\n"
        "# TYPE target_info gauge\n"
        'target_info{service_name="agent"} 1\n'
        '# HELP bpf_map_size_bytes_total Size, "in" C:\\\\\\nbytes.\n'
        "# TYPE bpf_map_size_bytes_total counter\n"
        'bpf_map_size_bytes_total{name="50%"} 5\n'
    )


def test_a_page_in_openmetrics():
    size = Metric("bpf.map.size", Kind.COUNTER, "By", 'Size, "in" C:\\\nbytes.', "x", ("name",))
    page = Page({"service.name": "agent"}).render(batch((size, column(size, ({"name": "50%"}, 5)))), Format.OPENMETRICS)
    assert page.decode() == (
        "# HELP target Attributes of the resource the metrics belong to.\n"
        "# TYPE target info\n"
        'target_info{service_name="agent"} 1\n'
        '# HELP bpf_map_size_bytes Size, \\"in\\" C:\\\\\\nbytes.\n'
        "# TYPE bpf_map_size_bytes counter\n"
        "# UNIT bpf_map_size_bytes bytes\n"
        'bpf_map_size_bytes_total{name="50%"} 5\n'
        "# EOF\n"
    )


@BOTH
def test_a_histogram_accumulates_its_buckets(form):
    took = Metric("took", Kind.HISTOGRAM, "s", "", "x", ("le",), integer=False, boundaries=(0.005, 1, 2500000))
    text = render(form, (took, column(took, ({"le": "mine"}, Distribution((1, 2, 0, 4), 1.5, 0.001, 3e6)))))
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        'took_seconds_bucket{exported_le="mine",le="0.005"} 1',
        'took_seconds_bucket{exported_le="mine",le="1.0"} 3',
        'took_seconds_bucket{exported_le="mine",le="2.5e+06"} 3',
        'took_seconds_bucket{exported_le="mine",le="+Inf"} 7',
        'took_seconds_sum{exported_le="mine"} 1.5',
        'took_seconds_count{exported_le="mine"} 7',
    ]
    parsed(text.encode(), form)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (1, "1.0"),
        (1e-5, "1e-05"),
        (0.0001, "0.0001"),
        (1e5, "100000.0"),
        (1e6, "1e+06"),
        (1234567.5, "1.2345675e+06"),
        (1e22, "1e+22"),
    ],
)
def test_boundaries_are_canonical(value, text):
    assert boundary(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_boundary_keeps_its_value(value):
    assert float(boundary(value)) == value


@BOTH
def test_numbers_are_spelled_as_prometheus_does(form):
    ints, floats = gauge("ints", attributes=("i",)), gauge("floats", attributes=("i",), integer=False)
    values = [1.5, 2, math.inf, -math.inf, math.nan, 1e300]
    points = [({"i": str(i)}, value) for i, value in enumerate(values)]
    text = render(form, (ints, column(ints, *points, ({"i": "b"}, True), ({"i": "big"}, 2**80))), (floats, column(floats, *points)))
    assert [line.split()[1] for line in text.splitlines() if line.startswith(("ints{", "floats{"))] == [
        "1.5", "2", "+Inf", "-Inf", "NaN", "1e+300", "1", str(2**80), "1.5", "2", "+Inf", "-Inf", "NaN", "1e+300",
    ]  # fmt: skip


@BOTH
def test_attributes_of_the_workload_are_labels_of_the_series(form):
    size = gauge("size", attributes=("id",), optional=("pid",))
    pod = {"container.id": "abc", "k8s.pod.name": "web-0", "pid": 1}
    one, two = size.series({"id": "1", "pid": 7}, resource=pod), size.series({"id": "2"})
    found = parsed(render(form, (size, Column((one, two), (1, 2)))).encode(), form)
    assert found == {
        ("size", (("container_id", "abc"), ("id", "1"), ("k8s_pod_name", "web-0"), ("pid", "7"))): 1,
        ("size", (("id", "2"),)): 2,
    }


def test_attributes_that_become_one_label_are_joined():
    size = gauge("size", attributes=("a.b", "a_b", "a-b", "on", "x"))
    text = render(Format.TEXT, (size, column(size, ({"a.b": "2", "a_b": "3", "a-b": "1", "on": False, "x": 0.5}, 1))))
    assert 'size{a_b="1;2;3",on="false",x="0.5"} 1\n' in text


def test_attributes_a_page_cannot_carry_are_left_off_and_reported(caplog):
    size = gauge("size", attributes=("__name__", "ようこそ", "id"))
    text = render(Format.TEXT, (size, column(size, ({"__name__": "x", "ようこそ": "y", "id": "1"}, 1))))
    assert 'size{id="1"} 1\n' in text
    assert len(caplog.messages) == 2


def test_text_that_is_no_unicode_is_replaced():
    size = gauge("size", description="a\udcff", attributes=("comm",))
    assert 'size{comm="a?b"} 1' in render(Format.TEXT, (size, column(size, ({"comm": "a\udcffb"}, 1))))


@BOTH
def test_metrics_that_meet_in_one_name_share_a_block(form):
    one, two = gauge("a.b", attributes=("x",)), gauge("a_b", attributes=("x",))
    other = gauge("other")
    text = render(form, (one, column(one, ({"x": "1"}, 1))), (other, column(other, ({}, 5))), (two, column(two, ({"x": "2"}, 2))))
    assert text.count("# TYPE a_b gauge") == 1
    assert parsed(text.encode(), form)[("a_b", (("x", "2"),))] == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (gauge("a.b"), Metric("a_b", Kind.HISTOGRAM, "", "", "x", boundaries=(1.0,))),
        (gauge("foo"), Metric("foo", Kind.COUNTER, "", "", "x")),
        (Metric("foo", Kind.HISTOGRAM, "", "", "x", boundaries=(1.0,)), gauge("foo.count")),
        (gauge("x"), gauge("target_info")),
        (gauge("x"), Metric("total", Kind.COUNTER, "", "", "x")),
        (gauge("x"), gauge("名")),
    ],
    ids=lambda metric: metric.name,
)
def test_a_metric_whose_name_is_taken_is_left_off_and_reported_once(first, second, caplog):
    value = Distribution((1, 0), 0.5, 0.5, 0.5)
    families = [(m, column(m, ({}, value if m.kind is Kind.HISTOGRAM else 1))) for m in (first, second)]
    page = Page(RESOURCE)
    for form in Format:
        assert page.render(batch(*families), form) == Page(RESOURCE).render(batch(families[0]), form)
    assert len(caplog.records) == 1
    assert second.name in caplog.text or repr(second.name) in caplog.text


def test_a_column_that_does_not_fit_its_series_costs_only_itself(caplog):
    good, bad = gauge("good"), gauge("bad")
    page = Page({})
    for _ in range(2):
        text = page.render(batch((bad, Column((bad.series({}),), (1, 2))), (good, column(good, ({}, 3)))), Format.TEXT).decode()
        assert "\ngood 3\n" in text
        assert "\nbad" not in text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_family_without_points_is_not_on_the_page():
    size = gauge("size")
    assert render(Format.TEXT, (size, Column((), ()))) == ""


def test_new_values_and_series_appear_and_old_ones_are_forgotten():
    size = gauge("size", attributes=("id",))
    page = Page({})
    series = tuple(size.series({"id": str(i)}) for i in range(3))

    def lines(members, values):
        text = page.render(batch((size, Column(members, values))), Format.TEXT).decode()
        return [line for line in text.splitlines() if not line.startswith("#")]

    assert lines(series, (1, 2, 3)) == ['size{id="0"} 1', 'size{id="1"} 2', 'size{id="2"} 3']
    assert lines(series, (4, 5, 6)) == ['size{id="0"} 4', 'size{id="1"} 5', 'size{id="2"} 6']
    assert lines((series[2], size.series({"id": "9"})), (7, 8)) == ['size{id="2"} 7', 'size{id="9"} 8']
    assert set(page._labels) == {one for template in page._templates.values() for one in template.series}
    assert len(page._labels) == 2
    assert lines((), ()) == []
    assert not page._labels
    assert not page._templates


names = st.text(st.characters(codec="ascii"), min_size=1, max_size=20)
# prometheus_client's parsers strip lines and split them by str.splitlines' rules, so no exotic line ends in this test.
texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), include_characters='\n\\"{}=,# %'), max_size=20)
numbers = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats())


@BOTH
@given(
    name=names,
    unit=st.sampled_from(["", "1", "By", "s", "{x}", "By/s"]),
    description=texts,
    rows=st.lists(st.tuples(texts, numbers), max_size=5),
)
def test_parsers_read_back_what_was_written(form, name, unit, description, rows):
    metric = gauge(name, unit, description, attributes=("key.1", "key-2"), integer=False)
    points = [({"key.1": text, "key-2": str(i)}, value) for i, (text, value) in enumerate(rows)]
    page = Page(RESOURCE).render(batch((metric, column(metric, *points))), form)
    try:
        expected_name = metric_name(name, unit, Kind.GAUGE)
    except ValueError:
        return
    found = {key: value for key, value in parsed(page, form).items() if key[0] == expected_name}
    wanted = {(expected_name, (("key_1", labels["key.1"]), ("key_2", labels["key-2"]))): value for labels, value in points}
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert found[key] == value or (math.isnan(value) and math.isnan(found[key]))


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.text(), st.integers(), st.booleans(), st.floats()), max_size=5))
def test_any_attributes_make_a_valid_page(attributes):
    page = Page(attributes).render(batch(), Format.OPENMETRICS).decode()
    body = page.replace("\\n", "").replace("\\\\", "").replace('\\"', "")
    assert body.endswith("# EOF\n")
    assert body.count("\n") == (4 if attributes else 1)
    assert body.count('"') % 2 == 0
    usable = [key for key in attributes if key.strip("_") and any(c.isascii() and c.isalnum() for c in key)]
    kept = {label_name(key) for key in usable if not label_name(key).startswith("__")}
    assert body.count('="') >= len(kept)


@BOTH
def test_the_agents_own_rows_are_read_back(form):
    found = parsed(Page(RESOURCE).render(agent_batch(), form), form)
    assert found[("target_info", (("host_name", 'a"b\\c\nd'), ("n", "3"), ("ok", "true"), ("service_name", "agent")))] == 1
    for metric in agent.ALL:
        name = metric_name(metric.name, metric.unit, metric.kind) + ("_count" if metric.kind is Kind.HISTOGRAM else "")
        assert name in {key for key, _ in found}


@pytest.mark.system
def test_promtool_finds_nothing_to_say_of_the_agents_own_rows():
    promtool = shutil.which("promtool")
    if promtool is None and os.environ.get("CI") != "true":
        pytest.skip("promtool is not installed (Debian: prometheus)")
    assert promtool is not None, "CI needs promtool (Debian: prometheus)"
    page = Page(RESOURCE).render(agent_batch(), Format.TEXT)
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=20, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.perf
def test_an_unchanged_page_costs_a_fraction_of_a_microsecond_a_point():
    """0.08 us measured; the limit leaves room for a busy machine, and a page built line by line is beyond it."""
    size = gauge("size", attributes=("id", "name"))
    one = batch((size, column(size, *(({"id": str(i), "name": "x"}, i) for i in range(10_000)))))
    page = Page({})

    def once() -> float:
        began = time.thread_time()
        page.render(one, Format.TEXT)
        return time.thread_time() - began

    once()
    assert min(once() for _ in range(20)) / 10_000 < 0.2e-6
