"""The page of all sources, as this host has them, read by Debian's promtool."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.process import CLEAN, COMMAND, ROOT

pytestmark = pytest.mark.system


def test_promtool_has_one_remark_on_the_page_of_all_sources() -> None:
    """gpu_count is a name of gpu_exporter, whose dashboards are to go on working; METRICS.md says so."""
    promtool = shutil.which("promtool")
    if promtool is None and CLEAN.get("CI") != "true":
        pytest.skip("promtool is not installed (Debian: prometheus)")
    assert promtool, "CI needs promtool (Debian: prometheus)"
    page = subprocess.run([*COMMAND, "--once"], cwd=ROOT, env=CLEAN, capture_output=True, check=True, timeout=60).stdout
    assert b"\ngpu_count " in page
    checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False, timeout=20)
    (remark,) = (checked.stdout + checked.stderr).decode().splitlines()
    assert remark.startswith("gpu_count ")
