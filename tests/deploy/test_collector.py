"""Configurations of the OpenTelemetry Collector that we ship."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.dashboards.queries import NAMES
from tests.deploy.alerts import GROUPS
from tests.deploy.manifests import SIDECAR, STACK, collector_configs, config_maps, containers, mounted_files

_CONFIGS = pytest.mark.parametrize("config", [pytest.param(config, id=name) for name, config in collector_configs()])


@_CONFIGS
def test_pipelines_use_what_is_configured_and_everything_configured_is_used(config: dict[str, Any]) -> None:
    pipelines = config["service"]["pipelines"].values()
    for part in ("receivers", "processors", "exporters"):
        assert {name for pipeline in pipelines for name in pipeline[part]} == config[part].keys()
    assert set(config["service"].get("extensions", [])) == config.get("extensions", {}).keys()


@_CONFIGS
def test_memory_is_limited_first_and_batches_are_made_last(config: dict[str, Any]) -> None:
    """The order the Collector's documentation asks for."""
    for pipeline in config["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"


@_CONFIGS
def test_component_names_are_the_current_ones(config: dict[str, Any]) -> None:
    """Since 0.15x; otlp (as an exporter), otlphttp and k8sattributes are aliases that will go."""
    assert not {"otlp", "otlphttp"} & config["exporters"].keys()
    assert "k8sattributes" not in config["processors"]


@_CONFIGS
def test_the_receivers_address_is_given(config: dict[str, Any]) -> None:
    """The default has been localhost since 0.104: of the pod, where nobody else can reach it."""
    assert config["receivers"]["otlp"]["protocols"].keys() == {"grpc"}
    assert config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].endswith(":4317")


def test_the_stack_hands_on_to_its_own_prometheus() -> None:
    config = dict(collector_configs())[STACK.name]
    assert config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] == "0.0.0.0:4317"
    assert config["exporters"] == {"otlp_http": {"endpoint": "http://127.0.0.1:9090/api/v1/otlp"}}
    arguments = containers(STACK)["prometheus"]["args"]
    assert {"--web.enable-otlp-receiver", "--web.listen-address=0.0.0.0:9090"} <= set(arguments)
    probe = containers(STACK)["collector"]["readinessProbe"]["httpGet"]["port"]
    assert config["extensions"]["health_check"]["endpoint"].endswith(f":{probe}")


def test_the_stacks_prometheus_takes_late_points_and_names_workloads() -> None:
    config = yaml.safe_load(config_maps(STACK)["prometheus-config"]["prometheus.yml"])
    assert config["storage"]["tsdb"]["out_of_order_time_window"] == "10m"
    assert {"container.id", "k8s.pod.name", "k8s.namespace.name"} <= set(config["otlp"]["promote_resource_attributes"])
    (rules,) = config["rule_files"]
    assert {rules.replace("*", name) for name in GROUPS} <= mounted_files(STACK).keys()


def test_the_stacks_grafana_finds_what_it_is_pointed_to() -> None:
    files = mounted_files(STACK)
    (source,) = yaml.safe_load(files["/etc/grafana/provisioning/datasources/prometheus.yaml"])["datasources"]
    assert (source["uid"], source["type"], source["url"]) == ("prometheus", "prometheus", "http://127.0.0.1:9090")
    (provider,) = yaml.safe_load(files["/etc/grafana/provisioning/dashboards/hostmetrics.yaml"])["providers"]
    folder = provider["options"]["path"]
    assert {f"{folder}/{name}.json" for name in NAMES} <= files.keys()
    environment = {each["name"]: each["value"] for each in containers(STACK)["grafana"]["env"]}
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/ebpf.json"
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


def test_the_sidecar_names_the_pods_of_its_own_node() -> None:
    config = yaml.safe_load(SIDECAR.read_text())
    named = [config["processors"][each] for each in config["service"]["pipelines"]["metrics"]["processors"] if "k8s" in each]
    assert all(processor["filter"] == {"node_from_env_var": "NODE_NAME"} for processor in named)
    rules = [[rule["sources"] for rule in processor["pod_association"]] for processor in named]
    # A rule whose attribute is there is the last that one processor tries: hence one each.
    assert rules == [[[{"from": "resource_attribute", "name": name}]] for name in ("container.id", "k8s.pod.uid")]
