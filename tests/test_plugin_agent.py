"""Sources of third parties in a running agent: installed as pip does it, exported by both pipelines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_hostmetrics import __version__
from otel_hostmetrics.catalogue import agent as rows
from otel_hostmetrics.export.metering import SCOPE
from otel_hostmetrics.plugins import GROUP
from tests.distribution import install
from tests.export.everything import exported
from tests.export.otlp.collector import Collector, running
from tests.process import CLEAN, COMMAND, ROOT, agent, eventually

QUIET = ("--sources", "agent")

ACME = """
import os, time
from opentelemetry.metrics import Observation

def say(word):
    with open(os.environ["ACME_LOG"], "a") as file:
        file.write(word + " ")

say("imported")

def register(meter):
    say("registered")
    meter.create_observable_gauge("acme.temperature", [lambda _: [Observation(21.5, {"sensor": "a"})]], "Cel", "It is warm.")
    meter.create_observable_counter("acme.shared", [lambda _: [Observation(3)]], "By")
    meter.create_counter("acme.counted").add(2)
    meter.create_histogram("acme.took", "s", explicit_bucket_boundaries_advisory=[1]).record(0.5)
    return lambda: say("closed")

def hang(meter):
    meter.create_observable_gauge("acme.hangs", [lambda _: time.sleep(1000)])

def broken(meter):
    raise ValueError("no such device")
"""
OTHER = """
from opentelemetry.metrics import Observation

def register(meter):
    meter.create_observable_gauge("acme.shared", [lambda _: [Observation(0.5)]], "s")
"""


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """Two distributions with four plugins: the environment that has them on its path."""
    plugins = {"acme": "acme:register", "acme-hangs": "acme:hang", "acme-broken": "acme:broken"}
    install(tmp_path / "site", "acme-hostmetrics", "1.2.0", plugins, acme=ACME)
    found = install(tmp_path / "site", "other", "3", {"other": "other:register"}, other=OTHER)
    return found | {"ACME_LOG": str(tmp_path / "acme.log")}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running() as made:
        yield made


def front(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], env=CLEAN | environ, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def said_by_acme(site: dict[str, str]) -> list[str]:
    path = Path(site["ACME_LOG"])
    return path.read_text().split() if path.exists() else []


def by_scope(request: Any) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for resource in request.resource_metrics:
        for each in resource.scope_metrics:
            metrics = found.setdefault((each.scope.name, each.scope.version), {})
            metrics |= {metric.name: exported(metric) for metric in each.metrics}
    return found


def test_none_is_loaded_unless_it_is_named(site):
    done = front("--once", *QUIET, **site)
    assert done.returncode == 0
    assert "otel_hostmetrics_process_threads" in done.stdout
    assert "acme" not in done.stdout
    assert said_by_acme(site) == []


@pytest.mark.parametrize("pipeline", ["native", "sdk"])
def test_both_pipelines_export_what_it_yields_under_its_own_scope(tmp_path, site, collector, pipeline):
    out = tmp_path / "out"
    options = ("--prometheus", "127.0.0.1:0", "--snapshot-dir", str(out), "--interval", "0.2s", "--pipeline", pipeline)
    plugins = ("--plugin", "acme", "--plugin", "other")
    with agent(tmp_path / "said", "--otlp-grpc", f"127.0.0.1:{collector.port}", *options, *plugins, *QUIET, **site) as it:
        collector.wait(3)
        page = it.page()
        document = json.loads((out / "latest.json").read_bytes())
        assert it.stop()[0] == 0
    assert said_by_acme(site) == ["imported", "registered", "closed"]
    scopes = by_scope(collector.accepted[-1])
    assert scopes.keys() == {(SCOPE, __version__), ("acme-hostmetrics", "1.2.0"), ("other", "3")}
    assert rows.CPU_TIME.name in scopes[SCOPE, __version__]
    acme, other = scopes["acme-hostmetrics", "1.2.0"], scopes["other", "3"]
    assert acme.keys() == {"acme.temperature", "acme.shared", "acme.counted", "acme.took"}
    (temperature,) = acme["acme.temperature"].points
    assert (temperature.attributes, temperature.value[:2]) == ({("sensor", "string_value", "a")}, ("as_double", 21.5))
    assert (acme["acme.temperature"].unit, acme["acme.temperature"].description) == ("Cel", "It is warm.")
    assert (acme["acme.shared"].monotonic, acme["acme.shared"].points[0].value[:2]) == (True, ("as_int", 3))
    assert acme["acme.counted"].points[0].value[:2] == ("as_int", 2)
    assert acme["acme.took"].points[0].value[:6] == (1, 0.5, 0.5, 0.5, (1, 0), (1.0,))
    assert (other["acme.shared"].kind, other["acme.shared"].points[0].value[:2]) == ("gauge", ("as_double", 0.5))
    assert _sample(page, "acme_shared_seconds") == ({"otel_scope_name": "other", "otel_scope_version": "3"}, 0.5)
    assert _sample(page, "acme_shared_bytes_total")[1] == 3
    assert _sample(page, "acme_took_seconds_count")[0]["otel_scope_name"] == "acme-hostmetrics"
    own = _sample(page, "otel_hostmetrics_process_threads")[0]
    assert own == ({} if pipeline == "native" else {"otel_scope_name": SCOPE, "otel_scope_version": __version__})
    assert {"name": "other", "version": "3"} in [metric.get("scope") for metric in document["metrics"]]
    assert document["sources"]["plugin.acme"]["state"] == "ok"


def _sample(page: str, name: str) -> tuple[dict[str, str], float]:
    """Labels, less the empty ones, and value of the only sample of that name."""
    (found,) = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", page, re.MULTILINE)
    return {key: text for key, text in re.findall(r'(\w+)="([^"]*)"', found[0]) if text}, float(found[1])


@pytest.mark.parametrize("pipeline", ["native", "sdk"])
def test_one_that_hangs_and_one_that_is_broken_cost_nobody_else_anything(tmp_path, site, collector, pipeline):
    options = ("--interval", "0.2s", "--pipeline", pipeline, "--plugin", "*")
    more = site | {"OTEL_HOSTMETRICS_GENERAL__DEADLINE": "0.1s"}
    with agent(tmp_path / "said", "--otlp-grpc", f"127.0.0.1:{collector.port}", *options, *QUIET, **more) as it:
        collector.wait(4)
        status, took = it.stop()
    assert status == 0
    assert took < 2.5
    scopes = by_scope(collector.accepted[-1])
    assert "acme.temperature" in scopes["acme-hostmetrics", "1.2.0"]
    states = {
        next(text for key, _, text in point.attributes if key == rows.SOURCE): next(
            text for key, _, text in point.attributes if key == rows.STATE
        )
        for point in scopes[SCOPE, __version__][rows.SOURCE_STATUS.name].points
    }
    assert states | {"agent": "ok"} == {
        "agent": "ok", "plugin.acme": "ok", "plugin.other": "ok", "plugin.acme-hangs": "late", "plugin.acme-broken": "failed"
    }  # fmt: skip
    assert len([line for line in it.lines if "plugin.acme-hangs is late" in line]) == 1
    assert len([line for line in it.lines if "Traceback" in line]) == 1, "of the one that is broken, once"


LINGERING = """
import atexit, time
from concurrent.futures import ThreadPoolExecutor
from opentelemetry.metrics import Observation

pool = ThreadPoolExecutor(1)

def read(_):
    print("read")
    return [Observation(1)]

def register(meter):
    print("registered")
    atexit.register(time.sleep, 1000)
    pool.submit(time.sleep, 1000)
    meter.create_observable_gauge("lingering", [read])
"""


@pytest.fixture
def lingering(tmp_path: Path) -> dict[str, str]:
    return install(tmp_path / "site", "lingering", "1", {"lingering": "lingering:register"}, lingering=LINGERING)


def test_what_a_plugin_waits_for_does_not_hold_up_the_end(tmp_path, lingering):
    with agent(tmp_path / "said", "--prometheus", "127.0.0.1:0", "--plugin", "lingering", *QUIET, **lingering) as it:
        assert "lingering" in it.page()
        status, took = it.stop()
    assert status == 0
    assert took < 2.5


@pytest.mark.parametrize("command", [("--once",), ("doctor",)])
def test_nor_that_of_a_single_collection(lingering, command):
    assert front(*command, "--plugin", "lingering", *QUIET, **lingering).returncode == 0


def test_what_a_plugin_prints_is_not_in_what_once_prints(lingering):
    done = front("--once", "--format", "json", "--plugin", "lingering", *QUIET, **lingering)
    assert "lingering" in [metric["name"] for metric in json.loads(done.stdout)["metrics"]]
    assert {"registered", "read"} <= {*done.stderr.splitlines()}


def test_a_reload_loads_and_unloads(tmp_path, site):
    path = tmp_path / "agent.yaml"
    form = "general: {{interval: 1h, sources: [agent], plugins: [{}]}}\nprometheus: {{listen: '127.0.0.1:0'}}\n"
    path.write_text(form.format("acme"))
    with agent(tmp_path / "said", "--config", str(path), **site) as it:
        assert "acme_temperature_celsius" in it.page()
        path.write_text(form.format("other"))
        os.kill(it.pid, signal.SIGHUP)
        page = it.page(2)
        assert "acme_temperature" not in page
        assert "acme_shared_seconds" in page
        eventually(lambda: said_by_acme(site)[-1] == "closed", what="closed")
        path.write_text(form.format("acme, nonesuch"))
        os.kill(it.pid, signal.SIGHUP)
        it.wait_for("the last good configuration stays")
        path.write_text(form.format("acme, other"))
        os.kill(it.pid, signal.SIGHUP)
        assert "acme_temperature_celsius" in it.page(3)
        assert it.stop()[0] == 0
    assert said_by_acme(site) == ["imported", "registered", "closed", "registered", "closed"]
    assert [line for line in it.lines if "'nonesuch' is not installed" in line]


def test_once_in_every_form(site):
    texts = {form: front("--once", "--format", form, "--plugin", "acme", *QUIET, **site).stdout for form in ("text", "openmetrics")}
    assert all('acme_temperature_celsius{otel_scope_name="acme-hostmetrics",' in text for text in texts.values())
    document = json.loads(front("--once", "--format", "json", "--plugin", "acme", *QUIET, **site).stdout)
    assert [metric["scope"] for metric in document["metrics"] if metric["name"] == "acme.shared"] == [
        {"name": "acme-hostmetrics", "version": "1.2.0"}
    ]
    otlp = json.loads(front("--once", "--format", "otlp-json", "--plugin", "acme", *QUIET, **site).stdout)
    assert {"name": "acme-hostmetrics", "version": "1.2.0"} in [
        each["scope"] for resource in otlp["resourceMetrics"] for each in resource["scopeMetrics"]
    ]


def test_exclude_takes_the_names_of_plugins_too(site):
    done = front("--once", "--plugin", "acme", "--exclude", "acme.temp*", *QUIET, **site)
    assert "acme_shared_bytes_total" in done.stdout
    assert "acme_temperature" not in done.stdout
    assert "no metric is called" not in done.stderr


def test_doctor_has_a_line_for_each(site):
    done = front("doctor", "--plugin", "acme,acme-broken", "--sources", "rapl", **site)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "plugin.acme ok" in lines
    assert "plugin.acme-broken failed ValueError('no such device')" in lines
    assert not [line for line in lines if "other" in line.partition(" ")[0]]
    assert said_by_acme(site) == ["imported", "registered", "closed"]


def test_one_that_is_not_installed_is_one_line_and_78(site):
    for command in ((), ("--once",), ("doctor",), ("config", "check")):
        done = front(*command, "--plugin", "acmee", **site)
        assert done.returncode == 78
        assert done.stderr == ("otel-hostmetrics: general.plugins: plugin 'acmee' is not installed, did you mean acme? (from --plugin)\n")
    done = front("--plugin", "zzz", **site)
    assert "plugin 'zzz' is not installed, there are acme, acme-broken, acme-hangs, other" in done.stderr
    done = front("--plugin", "zzz")
    cure = re.search(r"nor is any other: install it with (.*) \(from --plugin\)$", done.stderr.rstrip())
    assert cure
    words = cure[1].split()
    assert sys.executable in words
    if words[0] != "uv":  # which is not everywhere; pip is offered only where it is
        assert subprocess.run([*words, "--version"], capture_output=True, check=False).returncode == 0
    assert len(done.stderr.splitlines()) == 1


def test_the_source_in_the_readme_works(tmp_path):
    """Its very code, installed as its pyproject.toml says, started by its very command."""
    section = (ROOT / "README.md").read_text().partition("### Your own source\n")[2].partition("\n### ")[0]
    (name, source), (_, project) = re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```\n", section, re.DOTALL)
    told = tomllib.loads(project)["project"]
    plugins = told["entry-points"][GROUP]
    site = install(tmp_path / "site", told["name"], told["version"], plugins, **{name.removesuffix(".py"): source})
    (command,) = re.findall(r"^    otel-hostmetrics (.*)$", section, re.MULTILINE)
    done = front(*command.split(), "--sources", "agent", **site)
    assert done.returncode == 0
    scope = f'otel_scope_name="{told["name"]}",otel_scope_version="{told["version"]}"'
    samples = re.findall(rf'^acme_load{{load_minutes="(\d+)",{scope}}} [\d.]+$', done.stdout, re.MULTILINE)
    assert samples == ["1", "5", "15"]
    assert not [line for line in done.stderr.splitlines() if "level=info" not in line]


def test_all_of_none_is_said():
    done = front("--once", "--plugin", "*", *QUIET)
    assert done.returncode == 0
    assert "no plugin is installed" in done.stderr


def test_without_a_plugin_the_agent_does_not_pay_for_finding_them():
    """importlib.metadata with the email parser is 1.6 MB resident."""
    script = (
        "import sys; from otel_hostmetrics import agent, settings\n"
        'generation = agent.Generation(settings.decode(b\'{"prometheus": {"listen": "127.0.0.1:0"}}\'))\n'
        "generation.start([]); generation.pipeline.tick(); generation.close(0)\n"
        "print([name for name in ('importlib.metadata', 'otel_hostmetrics.plugins') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], env=CLEAN, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
