"""The systemd unit, by systemd's own judgement."""

from __future__ import annotations

import configparser
import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from otel_hostmetrics import cli
from otel_hostmetrics.config.environment import PREFIX
from tests.deploy.manifests import CAPABILITIES, ROOT, settings

_FOLDER = ROOT / "deploy/systemd"
_UNIT = _FOLDER / "otel-hostmetrics.service"


def _service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(_UNIT.read_text())
    return parser["Service"]


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists on this machine."""
    copy = tmp_path / _UNIT.name
    copy.write_text(_UNIT.read_text().replace("/usr/bin/otel-hostmetrics", sys.executable))
    return copy


def _analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program, "install Debian's systemd"
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.system
def test_systemd_accepts_every_line(unit: Path) -> None:
    checked = _analyze("verify", unit)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.system
def test_systemd_calls_its_exposure_ok(unit: Path) -> None:
    """2.8 with systemd 252; more than half of it is what BPF needs."""
    judged = _analyze("security", "--offline=true", "--no-pager", unit)
    level = re.search(r"Overall exposure level.*: ([0-9.]+)", judged.stdout)
    assert level, judged.stderr
    assert float(level[1]) < 3.5


@pytest.mark.system
def test_systemd_knows_every_system_call_we_allow() -> None:
    """A misspelt name would only be a line in the journal."""
    known = _analyze("syscall-filter", "--no-pager").stdout
    for name in _service()["SystemCallFilter"].split():
        assert re.search(rf"^\s*{re.escape(name)}$", known, re.MULTILINE), name


@pytest.mark.system
@pytest.mark.live
def test_its_rights_are_enough() -> None:
    """The agent as another user than root, with the unit's capabilities and no way to memory both writable and executable."""
    if os.geteuid() != 0:
        pytest.fail("start it as root") if os.environ.get("CI") == "true" else pytest.skip("needs root")
    plus = ",".join(name.lower().replace("cap_", "+") for name in _service()["AmbientCapabilities"].split())
    rights = [f"--{kind}=-all,{plus}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    # env(1) between them: it has the capabilities when it looks for an interpreter that perhaps only root may see.
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", *rights, "/usr/bin/env", sys.executable]
    agent = [*command, "-m", "otel_hostmetrics", "--once"]
    seen = subprocess.run(agent, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True, preexec_fn=_deny_write_execute)
    assert 'otel_hostmetrics_source_status{otel_hostmetrics_source_name="bpf",otel_hostmetrics_source_state="ok"} 1' in seen.stdout
    assert "bpf_map_memory_usage_bytes{" in seen.stdout or "bpf_maps{" not in seen.stdout, "only with CAP_SYS_ADMIN"
    assert 'error_type="denied"' not in seen.stdout


def _deny_write_execute() -> None:
    """MemoryDenyWriteExecute: prctl(2) with PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN (Linux 6.3)."""
    assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0


def test_the_capabilities_are_those_of_the_manifests() -> None:
    service = _service()
    assert set(service["AmbientCapabilities"].split()) == {f"CAP_{name}" for name in CAPABILITIES}
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"]
    explained = set(re.findall(r"CAP_[A-Z_]+", "".join(line for line in _UNIT.read_text().splitlines() if line.startswith("#"))))
    assert explained == set(service["AmbientCapabilities"].split())


def test_it_is_started_watched_reloaded_and_not_restarted_in_vain() -> None:
    service = _service()
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"]) >= 30, "a cycle may wait for sources until their deadline"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert service["Restart"] == "on-failure"
    assert int(service["RestartPreventExitStatus"]) == cli._BAD_CONFIGURATION
    assert service["EnvironmentFile"] == "-/etc/default/otel-hostmetrics"


def test_what_the_agent_reads_is_not_hidden_from_it() -> None:
    """Holders are other users' processes; maps of its own iterators are locked memory on old kernels."""
    service = _service()
    assert not {"ProtectProc", "ProcSubset", "PrivateNetwork", "PrivateUsers", "InaccessiblePaths"} & set(service)
    assert {"bpf", "perf_event_open"} <= set(service["SystemCallFilter"].split())


def test_the_file_a_reload_reads_can_be_given() -> None:
    """A reload cannot change the environment of what runs, so it needs --config."""
    service = _service()
    assert service["ExecStart"] == "/usr/bin/otel-hostmetrics $OPTIONS"
    assert service["Environment"] == "OPTIONS=", "systemd complains of a variable that is not set"
    options = _suggested()["OPTIONS"].split()
    assert options[0] in {parameter.opts[0] for parameter in typer.main.get_command(cli.app).params}


def test_the_installation_it_describes_takes_files_that_are_there() -> None:
    described = [line for line in _UNIT.read_text().splitlines() if line.startswith("#   sudo ")]
    taken = re.findall(r"deploy/systemd/\S+", " ".join(described))
    assert {_UNIT.name, "otel-hostmetrics.default"} == {Path(name).name for name in taken}
    assert all((ROOT / name).is_file() for name in taken)
    assert any(line.endswith(" /usr/bin/") for line in described), "where ExecStart has it"


def _suggested() -> dict[str, str]:
    lines = (_FOLDER / "otel-hostmetrics.default").read_text().splitlines()
    return dict(line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))


def test_every_setting_suggested_in_the_environment_file_is_one() -> None:
    lines = (_FOLDER / "otel-hostmetrics.default").read_text().splitlines()
    suggested = {name: value for name, value in _suggested().items() if name != "OPTIONS"}
    assert suggested
    assert all(name.startswith(PREFIX) for name in suggested)
    assert settings(suggested).snapshots.directory == f"/var/lib/{_service()['StateDirectory']}"
    assert not [line for line in lines if line and not line.startswith("#")], "by default nothing is set"
