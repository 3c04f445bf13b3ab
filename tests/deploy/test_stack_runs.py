"""``podman play kube metrics-stack.yaml``, the file as it is, on images of our own under the real names."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import yaml
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse

from dashboards import generate
from tests.deploy import alerts, images, podman
from tests.deploy.manifests import STACK, containers
from tests.deploy.needs import need_podman
from tests.system.processes import until

pytestmark = pytest.mark.system

_USERS = {"collector": "10001", "prometheus": "65534", "grafana": "472"}


def _data(url: str) -> Any:
    return json.loads(until(url))["data"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[podman.Podman]:
    need_podman()
    with podman.Podman(tmp_path_factory.mktemp("podman")) as engine:
        for name, container in containers(STACK).items():
            tree = tmp_path_factory.mktemp(name)
            getattr(images, name)(tree)
            engine.make_image(container["image"], tree, _USERS[name], f"/bin/{name}")
        engine.run("play", "kube", STACK)
        try:
            yield engine
        finally:
            engine.run("kube", "down", STACK)
            assert engine.run("ps", "--all", "--quiet") == "", "kube down leaves no container"


def test_prometheus_runs_with_our_configuration_and_rules(stack: podman.Podman) -> None:
    assert until("http://127.0.0.1:9090/-/ready")
    config = yaml.safe_load(_data("http://127.0.0.1:9090/api/v1/status/config")["yaml"])
    assert config["storage"]["tsdb"]["out_of_order_time_window"] == "10m"
    rules = [rule for group in _data("http://127.0.0.1:9090/api/v1/rules")["groups"] for rule in group["rules"]]
    assert sorted(rule["name"] for rule in rules) == sorted(rule["alert"] for rule in alerts.rules())
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}


def test_prometheus_may_write_its_data(stack: podman.Podman) -> None:
    assert _data("http://127.0.0.1:9090/api/v1/status/flags")["storage.tsdb.path"] == "/prometheus"
    assert _data("http://127.0.0.1:9090/api/v1/status/tsdb")["headStats"] is not None


def test_grafana_finds_the_data_source_and_both_dashboards(stack: podman.Podman) -> None:
    """Read over HTTP from inside the container, by Grafana's user, along the paths Grafana follows."""
    web = "http://127.0.0.1:3000"
    (source,) = yaml.safe_load(until(f"{web}/etc/grafana/provisioning/datasources/prometheus.yaml"))["datasources"]
    assert (source["uid"], source["type"], source["url"]) == ("prometheus", "prometheus", "http://127.0.0.1:9090")
    (provider,) = yaml.safe_load(until(f"{web}/etc/grafana/provisioning/dashboards/hostmetrics.yaml"))["providers"]
    for name, text in generate.dashboards().items():
        assert json.loads(until(f"{web}{provider['options']['path']}/{name}")) == json.loads(text)


def test_the_collector_takes_otlp_over_grpc(stack: podman.Podman) -> None:
    """Through the published port: nothing listens on the host itself."""
    with grpc.insecure_channel("127.0.0.1:4317") as channel:
        export = channel.unary_unary(
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            request_serializer=ExportMetricsServiceRequest.SerializeToString,
            response_deserializer=ExportMetricsServiceResponse.FromString,
        )
        answer = export(ExportMetricsServiceRequest(), timeout=20, wait_for_ready=True)
    assert answer.partial_success.rejected_data_points == 0


def test_every_port_is_published_on_the_loopback_address_only(stack: podman.Podman) -> None:
    bindings = json.loads(stack.run("pod", "inspect", "metrics-stack"))["InfraConfig"]["PortBindings"]
    assert {port: [each["HostIp"] for each in published] for port, published in bindings.items()} == {
        "3000/tcp": ["127.0.0.1"], "4317/tcp": ["127.0.0.1"], "9090/tcp": ["127.0.0.1"],
    }  # fmt: skip
    listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, timeout=10, check=True).stdout
    ports = {line.split()[3] for line in listening.splitlines()}
    assert not {f"{anywhere}:{port}" for anywhere in ("0.0.0.0", "*", "[::]") for port in (3000, 4317, 9090)} & ports


def test_every_container_has_its_limits(stack: podman.Podman) -> None:
    for name, container in containers(STACK).items():
        (inspected,) = json.loads(stack.run("inspect", f"metrics-stack-{name}"))
        memory = container["resources"]["limits"]["memory"]
        assert inspected["HostConfig"]["Memory"] == int(memory[:-2]) * {"Mi": 1 << 20, "Gi": 1 << 30}[memory[-2:]]
        assert inspected["State"]["Running"] is True
        assert not inspected["EffectiveCaps"]
