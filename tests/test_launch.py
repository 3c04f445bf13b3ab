"""The hand-over to the agent."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest

from otel_hostmetrics import launch
from otel_hostmetrics.settings import Otlp, Settings, decode, encode


def test_a_sealed_descriptor_holds_the_settings_and_cannot_change():
    settings = Settings(otlp=Otlp(headers={"authorization": "x"}))
    descriptor = launch.sealed(encode(settings))
    try:
        assert os.get_inheritable(descriptor)
        assert decode(os.read(descriptor, 1 << 20)) == settings
        assert (
            fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        )
        for change in (lambda: os.pwrite(descriptor, b"x", 0), lambda: os.ftruncate(descriptor, 0)):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(("how", "safe"), [([], False), (["-P"], True)])
def test_the_agent_is_looked_for_in_the_working_directory_only_if_the_front_was(tmp_path, how, safe):
    (tmp_path / "where.py").write_text("from otel_hostmetrics import launch; print(*launch.interpreter()[1:])")
    environ = os.environ | {"PYTHONPATH": f"{os.getcwd()}:{tmp_path}"}
    done = subprocess.run([sys.executable, *how, "-m", "where"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == (["-P"] if safe else [])


def test_a_working_directory_that_is_gone_is_not_looked_into(tmp_path):
    """Python itself has it not on its path then."""
    code = "import os; os.rmdir(os.getcwd()); from otel_hostmetrics import launch; print(*launch.interpreter()[1:])"
    (gone := tmp_path / "gone").mkdir()
    environ = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=gone, env=environ, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("-P\n", "")
