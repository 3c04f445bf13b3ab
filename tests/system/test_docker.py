"""A process in a container of a real dockerd loads BPF programs: whose are the exported points, by its files and by its socket?"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import CLEAN, COMMAND, ROOT, eventually
from tests.system import dockerd
from tests.system.loaded import LOAD, Loaded, labels_of, make_tree, need, page, program_in, resource_of

pytestmark = [pytest.mark.system, pytest.mark.live]


@pytest.fixture(scope="module")
def engine() -> Iterator[dockerd.Dockerd]:
    need(dockerd.missing())
    with tempfile.TemporaryDirectory(prefix="d", ignore_cleanup_errors=True) as folder, dockerd.Dockerd(Path(folder)) as found:
        make_tree(Path(folder) / "tree")
        found.load("localhost/bb", "1.2", Path(folder) / "tree")
        yield found


@pytest.fixture(scope="module")
def container(engine: dockerd.Dockerd) -> Loaded:
    identity = engine.run("demo", "localhost/bb:1.2", LOAD)
    return Loaded(identity, eventually(lambda: program_in(engine.logs(identity)), 30, "a program"))


def ways(engine: dockerd.Dockerd, *chosen: str) -> dict[str, str]:
    every = {"bundles": str(engine.bundles), "docker": str(engine.socket)}
    return {"pod_logs": "", **{way: value if way in chosen else "" for way, value in every.items()}}


@pytest.mark.parametrize("way", ["bundles", "docker"])
def test_a_container_has_its_name_and_image(engine: dockerd.Dockerd, container: Loaded, way: str) -> None:
    named = {"container.id": container.id, "container.runtime.name": "docker", "container.name": "demo"}
    image = {"container.image.name": "localhost/bb", "container.image.tags": ["1.2"]}
    assert resource_of(container.program, **ways(engine, way)) == {**named, **image}
    labels = labels_of(container.program, **ways(engine, way))
    assert (labels["container_id"], labels["container_name"]) == (container.id, "demo")


def test_by_the_default_path_of_its_files(engine: dockerd.Dockerd, container: Loaded) -> None:
    """As on a host whose /var/lib/docker/containers is a link elsewhere: it is followed as the host sees it, below its root."""
    host = engine.bundles.parents[1]
    (host / "var/lib/docker").mkdir(parents=True)
    (host / "var/lib/docker/containers").symlink_to("/" / engine.bundles.relative_to(host))
    for name in ("proc", "sys"):
        (host / name).symlink_to(f"/{name}")
    labels = labels_of(container.program, ("--root", str(host)))
    assert (labels["container_id"], labels["container_name"]) == (container.id, "demo")


def test_without_a_way_to_names_there_is_the_id_and_that_is_counted(engine: dockerd.Dockerd, container: Loaded) -> None:
    assert resource_of(container.program, **ways(engine)) == {"container.id": container.id, "container.runtime.name": "docker"}
    counted = 'otel_hostmetrics_workloads{otel_hostmetrics_workload_named="%s",workload_type="container"} %d\n'
    unnamed = page(("--sources", "bpf,agent"), **ways(engine))
    named = page(("--sources", "bpf,agent"), **ways(engine, "docker"))
    assert counted % ("true", 0) in unnamed
    assert counted % ("true", 1) in named
    assert 'otel_hostmetrics_workload_lookups_total{otel_hostmetrics_lookup_name="docker"} 1\n' in named
    assert 'otel_hostmetrics_workload_lookup_duration_seconds_count{otel_hostmetrics_lookup_name="docker"} 1\n' in named
    assert "_lookups_total{" not in unnamed


def test_a_point_of_its_process_has_the_name_of_the_executable(engine: dockerd.Dockerd, container: Loaded) -> None:
    wanted = f'bpf_object_id="{container.program}",bpf_object_type="program"'
    line = next(line for line in page(**ways(engine)).splitlines() if line.startswith("bpf_object_holder{") and wanted in line)
    labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
    assert labels["container_id"] == container.id
    assert labels["process_executable_name"] == Path(f"/proc/{labels['process_pid']}/exe").readlink().name


def test_doctor_says_that_both_ways_work(engine: dockerd.Dockerd, container: Loaded) -> None:
    settings = {f"OTEL_HOSTMETRICS_WORKLOADS__{name.upper()}": value for name, value in ways(engine, "bundles", "docker").items()}
    command = [*COMMAND, "doctor", "--sources", "bpf"]
    said = subprocess.run(command, env=CLEAN | settings, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    for way in ("bundles", "docker"):
        assert re.search(rf"^workloads\.{way} +ok +[1-9]\d* of \d+ containers, ", said, re.MULTILINE), said
