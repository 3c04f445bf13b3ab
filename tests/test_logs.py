"""One line per message, whatever it holds."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics import logs
from otel_hostmetrics.settings import Log


@pytest.fixture(autouse=True)
def root_logger():
    """The process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(settings: Log, *calls, environ=None) -> str:
    stream = io.StringIO()
    logs.setup(settings, stream, environ or {})
    for call in calls:
        call(logging.getLogger("otel_hostmetrics.test"))
    return stream.getvalue()


def test_logfmt():
    line = written(Log(), lambda log: log.warning('said "%s"\n', "no", extra={"source": "bpf", "count": 3}))
    assert re.fullmatch(
        r"ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=warning "
        r'logger=otel_hostmetrics\.test msg="said \\"no\\"\\n" source=bpf count=3\n',
        line,
    )


def test_json_keeps_numbers_and_has_the_traceback():
    def fail(log):
        try:
            raise OSError("x")
        except OSError:
            log.exception("failed", extra={"count": 3})

    fields = json.loads(written(Log(format="json"), fail))
    assert (fields["level"], fields["msg"], fields["count"]) == ("error", "failed", 3)
    assert fields["exception"].endswith("OSError: x")


def test_a_second_setup_replaces_the_first_and_levels_filter():
    assert written(Log(level="error"), lambda log: log.warning("a"), lambda log: log.error("b")).count("\n") == 1
    assert written(Log(level="debug"), lambda log: log.debug("a")).count("\n") == 1


@given(st.text(st.characters(), max_size=30), st.sampled_from(["logfmt", "json"]))
def test_any_text_is_one_line_of_valid_utf8(text, form):
    line = written(Log(format=form), lambda log: log.info("%s", text, extra={"path": text}))
    assert line.index("\n") == len(line) - 1
    line.encode()
    if form == "json":
        assert json.loads(line)["msg"] == text.encode("utf-8", "backslashreplace").decode()


CHILD = "import logging, os, sys; from otel_hostmetrics import logs; from otel_hostmetrics.settings import Log\n"


def child(environ: dict[str, str], descriptor: int, code: str) -> None:
    subprocess.run([sys.executable, "-c", CHILD + code], env=os.environ | environ, stderr=descriptor, check=True)


def test_priorities_where_standard_error_is_the_journal_and_only_there(tmp_path):
    code = "logs.setup(Log()); logging.error('a'); logging.warning('b'); logging.info('c')"
    with open(tmp_path / "stderr", "w+") as stderr:
        status = os.fstat(stderr.fileno())
        child({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, stderr.fileno(), code)
        child({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"}, stderr.fileno(), code)
        stderr.seek(0)
        assert [line[:3] for line in stderr] == ["<3>", "<4>", "<6>", "ts=", "ts=", "ts="]


def test_it_is_light_enough_for_the_agent():
    code = "assert not {'json', 'typer', 'rich', 'yaml', 'subprocess'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", CHILD + code], check=True)
