"""Which layer wins, what reaches the settings, and how each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_hostmetrics.config.resolve import Resolved, has_exit, resolve, with_exit
from otel_hostmetrics.config.schema import KEYS, ConfigError, Given, Key, Layer
from otel_hostmetrics.config.show import value_of
from otel_hostmetrics.settings import Seconds, Settings, decode, encode

NAMES = ("bpf", "rdma", "rapl")
PLUGINS = ("acme", "zeta")


def resolved(environ: dict[str, str] | None = None, text: str | None = None, folder: Path | None = None, **flags: object) -> Resolved:
    path = None
    if text is not None:
        assert folder is not None
        path = str(folder / "x.yaml")
        Path(path).write_text(text)
    layer: Layer = {name.replace("__", "."): Given(raw, f"--{name}") for name, raw in flags.items()}
    return resolve(layer, environ or {}, path, lambda: NAMES, lambda: PLUGINS)


def error(environ: dict[str, str] | None = None, text: str | None = None, folder: Path | None = None, **flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolved(environ, text, folder, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_given_is_the_defaults():
    assert resolved().settings == Settings()


def test_each_layer_wins_over_the_next_weaker(tmp_path):
    text = "general: {interval: 1s}"
    otel = {"OTEL_METRIC_EXPORT_INTERVAL": "2000"}
    alias = otel | {"RDMA_MON_GENERAL__POLL_INTERVAL": "3"}
    own = alias | {"OTEL_HOSTMETRICS_GENERAL__INTERVAL": "4s"}
    found = [
        resolved(environ, text, tmp_path, **flags).settings.general.interval
        for environ, flags in (({}, {}), (otel, {}), (alias, {}), (own, {}), (own, {"general__interval": "5s"}))
    ]
    assert found == [1, 2, 3, 4, 5]


SAMPLES: dict[str, tuple[str, object]] = {
    "path.root": ("/usr", "/usr"),
    "path.procfs": ("/usr", "/usr"),
    "path.sysfs": ("/usr", "/usr"),
    "general.sources": ("bpf, rdma", ("bpf", "rdma")),
    "general.no_sources": ("rapl", ("rapl",)),
    "general.plugins": ("zeta, *", ("zeta", "*")),
    "general.pipeline": ("sdk", "sdk"),
    "otlp.endpoint": ("https://gw:4317", "https://gw:4317"),
    "otlp.insecure": ("off", False),
    "otlp.headers": ("a=1%2C,b=2", {"a": "1,", "b": "2"}),
    "otlp.compression": ("gzip", "gzip"),
    "otlp.ca_file": ("/dev/null", "/dev/null"),
    "otlp.temporality": ("delta", "delta"),
    "prometheus.listen": ("[::]:9464", "[::]:9464"),
    "log.level": ("error", "error"),
    "log.format": ("json", "json"),
    "resource.attributes": ("team=a", {"team": "a"}),
    "bpf.engine": ("ids", "ids"),
    "bpf.stats": ("on", "on"),
    "rdma.mode": ("roce", "roce"),
    "rdma.fabric": ("perfquery,mlxconfig", ("perfquery", "mlxconfig")),
    "rapl.energy_source": ("hwmon", "hwmon"),
    "rapl.plausible_power": ("1500.5", 1500.5),
    "attribution.processes": ("70", 70),
}
BY_TYPE: dict[object, tuple[str, object]] = {
    str: ("x", "x"),
    bool: ("yes", True),
    int: ("70000", 70_000),
    float: ("1.5", 1.5),
    Seconds: ("1.5m", Seconds(90)),
}


def _sample(key: Key) -> tuple[str, object]:
    if key.is_list:
        return "a,b", ("a", "b")
    return (key.choices[-1], key.choices[-1]) if key.choices else BY_TYPE[key.plain]


@pytest.mark.parametrize("name", [name for name in KEYS if name not in ("otlp.cert_file", "otlp.key_file")])
def test_every_key_has_its_variable(name):
    key = KEYS[name]
    text, value = SAMPLES.get(name) or _sample(key)
    variable = f"OTEL_HOSTMETRICS_{name.replace('.', '__').upper()}"
    found = resolved({variable: text})
    assert value_of(found.settings, name) == value
    assert found.origins[name] == f"environment {variable}"
    assert sum(origin != "default" for origin in found.origins.values()) == 1


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"OTEL_HOSTMETRICS_PROMETHEUS__MAX_CONNECTIONS": "0"},
            "prometheus.max_connections: expected a whole number, at least 1, got '0' "
            "(from environment OTEL_HOSTMETRICS_PROMETHEUS__MAX_CONNECTIONS)",
        ),
        (
            {"OTEL_HOSTMETRICS_GENERAL__INTERVALL": "1"},
            "general.intervall: unknown key, did you mean general.interval? (from environment OTEL_HOSTMETRICS_GENERAL__INTERVALL)",
        ),
        (
            {"OTEL_HOSTMETRICS_GENERAL_INTERVAL": "1"},
            "general_interval: unknown key, did you mean general.interval? (from environment OTEL_HOSTMETRICS_GENERAL_INTERVAL)",
        ),
        (
            {"OTEL_HOSTMETRICS_GENERAL__PIPELINE": "fast"},
            "general.pipeline: expected one of native, sdk, got 'fast' (from environment OTEL_HOSTMETRICS_GENERAL__PIPELINE)",
        ),
        (
            {"OTEL_HOSTMETRICS_BPF__PINS": "maybe"},
            "bpf.pins: expected true or false, got 'maybe' (from environment OTEL_HOSTMETRICS_BPF__PINS)",
        ),
        (
            {"OTEL_HOSTMETRICS_GENERAL__INTERVAL": "soon"},
            "general.interval: expected a duration such as 500ms, 10s or 5m, got 'soon' "
            "(from environment OTEL_HOSTMETRICS_GENERAL__INTERVAL)",
        ),
        (
            {"OTEL_HOSTMETRICS_GENERAL__INTERVAL": "999999h"},
            "general.interval: expected a duration from 1ms to 7 days, got '999999h' (from environment OTEL_HOSTMETRICS_GENERAL__INTERVAL)",
        ),
        (
            {"OTEL_HOSTMETRICS_GENERAL__INTERVAL": "0s"},
            "general.interval: expected a duration above zero, got '0s' (from environment OTEL_HOSTMETRICS_GENERAL__INTERVAL)",
        ),
        (
            {"OTEL_HOSTMETRICS_GENERAL__MAX_SERIES": "many"},
            "general.max_series: expected a whole number, got 'many' (from environment OTEL_HOSTMETRICS_GENERAL__MAX_SERIES)",
        ),
        (
            {"OTEL_HOSTMETRICS_RAPL__PLAUSIBLE_POWER": "0.5"},
            "rapl.plausible_power: expected a number, at least 1, got '0.5' (from environment OTEL_HOSTMETRICS_RAPL__PLAUSIBLE_POWER)",
        ),
        (
            {"OTEL_HOSTMETRICS_OTLP__CA_FILE": "/etc/passwd"},
            "otlp.ca_file: /etc/passwd is not PEM: it has no line -----BEGIN ... (from environment OTEL_HOSTMETRICS_OTLP__CA_FILE)",
        ),
        (
            {"OTEL_HOSTMETRICS_OTLP__HEADERS": "authorization=***"},
            "otlp.headers: expected the value of 'authorization', not the *** that `config show` has in its place "
            "(from environment OTEL_HOSTMETRICS_OTLP__HEADERS)",
        ),
        (
            {"OTEL_HOSTMETRICS_OTLP__HEADERS": "hunter2"},
            "otlp.headers: expected NAME=VALUE,NAME=VALUE, percent-encoded, got *** (from environment OTEL_HOSTMETRICS_OTLP__HEADERS)",
        ),
        (
            {"OTEL_HOSTMETRICS_GENERAL__SOURCES": "bfp"},
            "general.sources: unknown source 'bfp', did you mean bpf? (from environment OTEL_HOSTMETRICS_GENERAL__SOURCES)",
        ),
        (
            {"OTEL_HOSTMETRICS_GENERAL__NO_SOURCES": "zzz"},
            "general.no_sources: unknown source 'zzz', there are bpf, rapl, rdma (from environment OTEL_HOSTMETRICS_GENERAL__NO_SOURCES)",
        ),
        (
            {"RDMA_MON_PROMETHEUS__PROT": "1"},
            "prometheus.prot: unknown key, did you mean prometheus.listen? (from environment RDMA_MON_PROMETHEUS__PROT)",
        ),
        (
            {"OTEL_HOSTMETRICS_OTLP__CA_FILE": "/nonexistent.pem"},
            "otlp.ca_file: cannot read /nonexistent.pem: No such file or directory (from environment OTEL_HOSTMETRICS_OTLP__CA_FILE)",
        ),
        (
            {"OTEL_HOSTMETRICS_OTLP__KEY_FILE": "/dev/null"},
            "otlp.key_file: a client certificate needs both: otlp.cert_file is not set (from environment OTEL_HOSTMETRICS_OTLP__KEY_FILE)",
        ),
        (
            {"OTEL_HOSTMETRICS_PATH__ROOT": "/nonexistent"},
            "path.root: /nonexistent is not a directory, or not one that this user can reach "
            "(from environment OTEL_HOSTMETRICS_PATH__ROOT)",
        ),
        (
            {"OTEL_HOSTMETRICS_PATH__ROOT": "/a\udcff"},
            "path.root: expected UTF-8 text without NUL, got '/a\\udcff' (from environment OTEL_HOSTMETRICS_PATH__ROOT)",
        ),
    ],
)
def test_a_mistake_is_one_line_with_key_and_origin(environ, message):
    assert error(environ) == message


@pytest.mark.parametrize("listen", ["x", "host:", "localhost:65536", ":9464", "http://localhost:9464"])
def test_an_impossible_scrape_address_is_refused(listen):
    assert error(prometheus__listen=listen).startswith("prometheus.listen: expected [HOST:]PORT")


@pytest.mark.parametrize("endpoint", ["ftp://x:1", "a b", "http://host:99999", "https://me:secret@host:4317"])
def test_an_impossible_endpoint_is_refused_and_no_password_shown(endpoint):
    message = error(otlp__endpoint=endpoint)
    assert message.startswith("otlp.endpoint: ")
    assert message.endswith("(from --otlp__endpoint)")
    assert "secret" not in message


def test_a_header_grpc_cannot_send_is_refused_without_its_value():
    message = error(otlp__headers={"authorization": "Bearer s\u00e9same"})
    assert "authorization" in message
    assert "same" not in message


def test_mappings_merge_name_by_name_over_the_layers(tmp_path):
    environ = {"OTEL_RESOURCE_ATTRIBUTES": "team=b,zone=1", "OTEL_HOSTMETRICS_RESOURCE__ATTRIBUTES": "zone=2"}
    found = resolved(environ, "resource: {attributes: {team: a, rack: r1}}", tmp_path)
    assert found.settings.resource.attributes == {"team": "b", "rack": "r1", "zone": "2"}
    assert "OTEL_RESOURCE_ATTRIBUTES" in found.origins["resource.attributes"]


def test_a_stronger_layer_replaces_a_header_in_whatever_case(tmp_path):
    """Header names know no case: both would be sent."""
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=new,X-Tenant=a"}
    found = resolved(environ, "otlp: {headers: {Authorization: old, X-Rack: r1}}", tmp_path)
    assert found.settings.otlp.headers == {"authorization": "new", "x-rack": "r1", "x-tenant": "a"}


@pytest.mark.parametrize(
    ("environ", "name", "attributes"),
    [
        ({}, "file", {"team": "a"}),
        ({"OTEL_SERVICE_NAME": "env"}, "env", {"team": "a"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=env,team=b"}, "env", {"team": "b"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=weak", "OTEL_SERVICE_NAME": "env"}, "env", {"team": "a"}),
        ({"OTEL_SERVICE_NAME": "weak", "OTEL_HOSTMETRICS_RESOURCE__ATTRIBUTES": "service.name=env"}, "env", {"team": "a"}),
    ],
)
def test_service_name_as_an_attribute_is_the_service_s_name_of_its_layer(tmp_path, environ, name, attributes):
    found = resolved(environ, "resource: {attributes: {service.name: file, team: a}}", tmp_path)
    assert (found.settings.resource.service_name, found.settings.resource.attributes) == (name, attributes)


def test_within_a_layer_the_key_wins_over_the_attribute(tmp_path):
    found = resolved({}, "resource: {attributes: {service.name: attribute}, service_name: key}", tmp_path)
    assert (found.settings.resource.service_name, found.settings.resource.attributes) == ("key", {})


def test_an_empty_own_variable_turns_off_what_a_standard_one_turned_on():
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://gw:4317", "OTEL_HOSTMETRICS_OTLP__ENDPOINT": ""}
    assert resolved(environ).settings.otlp.endpoint == ""


def test_variables_that_kubernetes_makes_of_a_service_are_not_ours():
    links = {
        "OTEL_HOSTMETRICS_SERVICE_HOST": "10.0.0.1",
        "OTEL_HOSTMETRICS_SERVICE_PORT": "9464",
        "OTEL_HOSTMETRICS_SERVICE_PORT_METRICS": "9464",
        "OTEL_HOSTMETRICS_PORT": "tcp://10.0.0.1:9464",
        "OTEL_HOSTMETRICS_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "OTEL_HOSTMETRICS_PORT_9464_TCP_ADDR": "10.0.0.1",
        "OTEL_HOSTMETRICS_WEST_SERVICE_HOST": "10.0.0.2",
    }
    assert resolved(links).settings == Settings()


def test_the_old_monitors_variables_are_read_with_one_notice():
    found = resolved(
        {
            "RDMA_MON_GENERAL__POLL_INTERVAL": "15",
            "RDMA_MON_GENERAL__SNAPSHOT_INTERVAL": "60",
            "RDMA_MON_GENERAL__SNAPSHOT_DIR": "./snapshots",
            "RDMA_MON_PROMETHEUS__PORT": "9100",
            "RDMA_MON_PROMETHEUS__ENABLED": "true",
            "RDMA_MON_NETWORK__MODE": "roce",
            "RDMA_MON_NETWORK__DEVICES": "mlx5_0,mlx5_1",
        }
    )
    settings = found.settings
    assert (settings.general.interval, settings.snapshots.interval, settings.snapshots.directory) == (15, 60, "./snapshots")
    assert settings.prometheus.listen == "9100"
    assert (settings.rdma.mode, settings.rdma.devices) == ("roce", ("mlx5_0", "mlx5_1"))
    assert len(found.notices) == 1
    assert "RDMA_MON_GENERAL__POLL_INTERVAL as OTEL_HOSTMETRICS_GENERAL__INTERVAL" in found.notices[0]


@pytest.mark.parametrize(
    ("environ", "listen"),
    [
        ({"RDMA_MON_PROMETHEUS__ENABLED": "true"}, "9090"),
        ({"RDMA_MON_PROMETHEUS__ENABLED": "false", "RDMA_MON_PROMETHEUS__PORT": "9100"}, ""),
        ({"RDMA_MON_PROMETHEUS__PORT": "9100"}, "9100"),
        ({"RDMA_MON_PROMETHEUS__LISTEN": "0.0.0.0:1", "RDMA_MON_PROMETHEUS__PORT": "9100"}, "0.0.0.0:1"),
    ],
)
def test_the_old_port_and_switch_become_one_address(environ, listen):
    assert resolved(environ).settings.prometheus.listen == listen


def test_an_old_switch_that_is_neither_on_nor_off_is_refused():
    environ = {"RDMA_MON_PROMETHEUS__ENABLED": "maybe"}
    assert error(environ) == "prometheus.enabled: expected true or false, got 'maybe' (from environment RDMA_MON_PROMETHEUS__ENABLED)"


def test_old_keys_without_a_counterpart_are_named_once_and_their_values_are_not():
    found = resolved({"RDMA_MON_LLM__API_KEY": "sk-1", "RDMA_MON_DIFY__ENABLED": "true"})
    assert found.settings == Settings()
    assert found.notices == ("not used yet: RDMA_MON_DIFY__ENABLED, RDMA_MON_LLM__API_KEY",)


def test_without_any_exit_prometheus_is_served_on_localhost():
    found = with_exit(resolved())
    assert found.settings.prometheus.listen == "localhost:9464"
    assert found.defaulted_exit


@pytest.mark.parametrize("flags", [{"otlp__endpoint": "c:4317"}, {"prometheus__listen": "1"}, {"snapshots__directory": "x"}])
def test_any_exit_keeps_prometheus_as_configured(flags):
    before = resolved(**flags)
    assert with_exit(before) == before
    assert not before.defaulted_exit
    assert has_exit(before.settings)


def test_lists_come_as_commas_or_as_lists(tmp_path):
    listed = resolved({}, "general: {include: [bpf.*, 'rdma.*,hw.*'], exclude: a}", tmp_path).settings.general
    assert listed.include == ("bpf.*", "rdma.*", "hw.*")
    assert listed.exclude == ("a",)


def test_what_was_resolved_survives_the_hand_over_to_the_agent(tmp_path):
    settings = resolved({"OTEL_EXPORTER_OTLP_HEADERS": "a=b%20c"}, "general: {interval: 7 , deadline: 250ms}", tmp_path).settings
    assert decode(encode(settings)) == settings
