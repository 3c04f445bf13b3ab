from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.export.prometheus.negotiate import gzip_accepted, page_format
from otel_hostmetrics.export.prometheus.text import Format

OM = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", Format.TEXT),
        ("*/*", Format.TEXT),
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", Format.TEXT),
        ("application/json", Format.TEXT),
        (OM, Format.OPENMETRICS),
        (f"{OM}; version=1.0.0", Format.OPENMETRICS),
        (f'{OM.upper()}; VERSION="1.0.0"; Q=0.3', Format.OPENMETRICS),
        (f"{OM};version=0.0.1", Format.TEXT),
        (f"{OM};version=2.0.0", Format.TEXT),
        (f"{OM};version=1.0.0;q=0", Format.TEXT),
        (f"{OM};version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.5", Format.TEXT),
        (f"{OM};version=1.0.0;q=0.5,text/plain;q=0.5", Format.OPENMETRICS),
        (f"{OM};q=nan", Format.TEXT),
        (f"{OM};q=7", Format.TEXT),
        # Prometheus 2.42
        (f"{OM};version=1.0.0,{OM};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format.OPENMETRICS),
        # Prometheus 3
        (
            f"{OM};version=1.0.0;escaping=allow-utf-8;q=0.6,{OM};version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
            "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Format.OPENMETRICS,
        ),
    ],
)
def test_format(accept, expected):
    assert page_format(accept) is expected


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("", False), ("gzip", True), ("GZIP", True), ("x-gzip", True), ("deflate, gzip;q=0.5", True), ("gzip;q=0", False),
        ("gzip; q=0.000", False), ("*", True), ("*;q=0", False), ("gzip;q=0, *", False),
        ("br", False), ("identity", False), ("gzip;q=x", False),
    ],
)  # fmt: skip
def test_gzip(accept_encoding, expected):
    assert gzip_accepted(accept_encoding) is expected


@given(st.text())
def test_any_header_has_an_answer(header):
    assert page_format(header) in Format
    assert gzip_accepted(header) in (True, False)
