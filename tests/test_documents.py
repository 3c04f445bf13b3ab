"""README.md and METRICS.md say what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_hostmetrics.catalogue import CATALOGUE
from otel_hostmetrics.reference import prometheus_name
from otel_hostmetrics.sources import OWN, SOURCES
from tests.documents import ROOT, generated

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_what_is_generated_is_up_to_date(path: Path) -> None:
    assert path.read_text() == generated()[path], "run `make docs`"


def test_the_sample_page_of_the_readme_has_metrics_that_exist() -> None:
    shown = set(re.findall(r"^    ([a-z_]+)\{", README, re.MULTILINE))
    names = {prometheus_name(row) for row in CATALOGUE} | {"target_info"}
    assert shown
    assert shown <= names | {f"{name}_{part}" for name in names for part in ("bucket", "sum", "count")}


def test_every_source_stands_in_the_table_of_rights() -> None:
    assert {*SOURCES, OWN} == set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))


def test_files_and_folders_the_readme_names_exist() -> None:
    named = set(re.findall(r"\]\(([\w./-]+)\)", README)) | set(re.findall(r"`((?:deploy|dashboards|tests|\.ci)/[\w./-]*)`", README))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_target_the_makefile_declares_does_something() -> None:
    """A target that is only .PHONY succeeds without a word."""
    text = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert declared
    assert {name for name in declared[1].split() if not re.search(rf"^{name}:.*\n\t", text, re.MULTILINE)} == set()


def test_make_targets_the_readme_names_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", README)) <= targets
