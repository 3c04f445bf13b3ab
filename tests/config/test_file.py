"""The YAML file: what it may hold, and that nothing in it can do worse than one known error."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from otel_hostmetrics.config import file
from otel_hostmetrics.config.resolve import Resolved, resolve
from otel_hostmetrics.config.schema import KEYS, SECTIONS, ConfigError
from otel_hostmetrics.config.show import show
from otel_hostmetrics.settings import Settings, decode, encode


def of(content: bytes) -> Resolved:
    """Through a memory file: a path like any other, without a folder per example."""
    descriptor = os.memfd_create("config")
    try:
        os.write(descriptor, content)
        return resolve({}, {}, f"/proc/self/fd/{descriptor}", lambda: ("bpf",))
    finally:
        os.close(descriptor)


def error(content: str) -> str:
    """The line without the place it came from, a number that differs."""
    with pytest.raises(ConfigError) as caught:
        of(content.encode())
    return str(caught.value).partition(" (from ")[0]


def outcome(content: bytes) -> Settings | str:
    """The settings or the error's line; any other exception fails the test."""
    try:
        return of(content).settings
    except ConfigError as error:
        return str(error)


def check(found: Settings | str) -> None:
    assert found.isprintable() if isinstance(found, str) else decode(encode(found)) == found


@hypothesis(deadline=None)  # the deepest nesting takes a second
@given(st.binary(max_size=200))
@example(b"!!int 0x")
@example(b"!!bool x")
@example(b"2001-99-99")
@example(b"&a [*a]")
@example(b"general: &a {interval: *a}")
@example(b"? [1]\n: 2")
@example(b"<<: {general: {interval: 3}}")
@example(b"a: 1\n---\nb: 2")
@example(b'path: {root: "\\ud800"}')
@example(b'path: {root: "\\0"}')
@example(b"\xff\xfe\x00")
@example(b"[" * 5000)
@example(b"general: {interval: " + b"9" * 400 + b"}")
def test_any_bytes_are_settings_or_the_known_error(content):
    check(outcome(content))


_SCALARS = st.one_of(st.text(max_size=8), st.integers(), st.sampled_from(["10s", "true", "off", "native", "none", "bpf", "a=b"]))
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=4), inner, max_size=2)), max_leaves=4
)


@hypothesis(deadline=None)
@given(st.sampled_from(sorted(KEYS)), _VALUES)
def test_any_value_of_any_key_is_settings_or_the_known_error(name, value):
    section, _, key = name.partition(".")
    check(outcome(json.dumps({section: {key: value}}).encode()))


@pytest.mark.parametrize(("content", "message"), [
    ("general: {intervall: 1s}", "general.intervall: unknown key, did you mean general.interval?"),
    ("generall: {interval: 1s}", "generall: unknown key, did you mean general?"),
    ("general: {listen: 1}", "general.listen: unknown key, did you mean prometheus.listen?"),
    ("general: {poll_interval: 1}", "general.poll_interval: unknown key, did you mean general.interval?"),
    ("general: 5", "general: expected a mapping of keys"),
    ("otlp: {headers: [a]}", "otlp.headers: expected names with a value each, got ***"),
    ("general: {interval: [1]}", "general.interval: expected a duration such as 500ms, 10s or 5m, got a list"),
])  # fmt: skip
def test_a_mistake_in_the_file_names_key_and_file(content, message):
    assert error(content) == message


def test_errors_of_the_file_itself_name_it(tmp_path):
    cases = {"a: [1": "not YAML: line 1", "general: {interval: 1, interval: 2}": "interval is given twice", "- a": "expected a mapping"}
    path = tmp_path / "x.yaml"
    for content, message in cases.items():
        path.write_text(content)
        with pytest.raises(ConfigError, match=message) as caught:
            file.read(str(path))
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).endswith("(from --config)")


@pytest.mark.parametrize(
    ("path", "message"),
    [("/nonexistent.yaml", "No such file"), ("/", "directory"), ("/dev/zero", "larger than 256 KiB"), ("a\0b", "null byte")],
)
def test_an_unreadable_file_is_the_known_error(path, message):
    with pytest.raises(ConfigError, match=message):
        file.read(path)


def test_words_that_yaml_takes_for_booleans_and_numbers_mean_what_they_say():
    text = "bpf: {stats: off, pins: no}\nprometheus: {listen: 9464}\nresource: {service_name: 010}\nsnapshots:\notlp: {insecure: ~}"
    settings = of(text.encode()).settings
    assert (settings.bpf.stats, settings.bpf.pins) == ("off", False)
    assert (settings.prometheus.listen, settings.resource.service_name, settings.otlp.insecure) == ("9464", "010", None)


def test_what_is_shown_is_a_file_that_gives_the_same():
    text = (
        b"general: {interval: 1500ms, exclude: ['a b', 'c']}\nresource: {service_name: 'null', attributes: {k: 'v # w', '\\\"': x}}\n"
        b"otlp: {endpoint: 'dns:///gw:4317', insecure: false}\nsnapshots: {directory: '/h \\u00e9'}"
    )
    found = of(text)
    assert found.settings != Settings()
    assert of(show(found).encode()).settings == found.settings


def test_secrets_are_not_shown():
    shown = show(of(b"otlp: {headers: {authorization: Bearer hunter2}}"))
    assert "hunter2" not in shown
    assert '"authorization": "***"' in shown


def test_every_key_is_shown_with_its_origin():
    lines = show(of(b"general: {interval: 1s}")).splitlines()
    assert len(lines) == len(KEYS) + len(SECTIONS)
    assert sum(line.endswith("# default") for line in lines) == len(KEYS) - 1
    assert any(line.startswith("  interval: 1s ") and "/proc/self/fd/" in line for line in lines)
