"""Energy of processors, memory and GPUs: what is measured, what limits it, and whose it was."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from dashboards.panels import dashboard, lines, rows, stats

_ZONE = "instance, rapl_zone, rapl_interface"
_OF_ZONE = "{{instance}} {{rapl_zone}} {{rapl_interface}}"
_COMPONENT = "energy_component"
_PART = "instance, hw_type, hw_id"


def _watts(counter: str, by: str) -> str:
    """Power is energy per second."""
    return f"sum by ({by}) (rate({counter}[]))"


def _most(by: str, matchers: str = "") -> str:
    """The ten that took most."""
    return f"topk(10, {_watts(f'workload_energy_joules_total{{{matchers}}}', by)})"


def _now() -> Iterable[Builder[Panel]]:
    measured = {
        "hosts that measure": "sum(rapl_available{} > bool 0)",
        "zones": "sum(rapl_zones_discovered{})",
        "power": "sum(rate(energy_measured_joules_total{}[]))",
        "of workloads": "sum(rate(workload_energy_joules_total{}[]))",
        "idle": "sum(rate(energy_idle_joules_total{}[]))",
    }
    shares = {
        "workloads": _watts("workload_energy_joules_total{}", _COMPONENT),
        "nobody's": _watts("energy_unattributed_joules_total{}", _COMPONENT),
        "idle": _watts("energy_idle_joules_total{}", _COMPONENT),
    }
    parts = {f"{name} {{{{{_COMPONENT}}}}}": expr for name, expr in shares.items()}
    return [
        stats("Energy now", "Hosts and zones, and the power of all components.", measured,
              dict.fromkeys(("power", "of workloads", "idle"), "watt")),
        lines("Where the power goes", "What workloads took, what nobody did, and what was used for nothing; the sum is what is measured.",
              parts, "watt", 12, stacked=True),
        lines("Power of components", "Packages, memory and GPUs, which do not contain each other.",
              {"{{instance}} {{hw_type}} {{hw_id}}": _watts("hw_energy_joules_total{}", _PART)}, "watt", 12, stacked=True),
    ]  # fmt: skip


def _workloads() -> Iterable[Builder[Panel]]:
    pods = "k8s_namespace_name, k8s_pod_name"
    processes = _watts("workload_process_energy_joules_total{}", "instance, process_executable_name, process_pid")
    container = "container_id, container_name, k8s_container_name"
    return [
        lines("By namespace", "Power of the pods of each Kubernetes namespace, the ten that took most.",
              {"{{k8s_namespace_name}}": _most("k8s_namespace_name", 'k8s_namespace_name!=""')}, "watt", stacked=True),
        lines("By pod", "Power of each pod, the ten that took most.",
              {"{{k8s_namespace_name}}/{{k8s_pod_name}}": _most(pods, 'k8s_pod_name!=""')}, "watt", stacked=True),
        lines("By container", "Power of each container, the ten that took most.",
              {"{{container_name}} {{k8s_container_name}} {{container_id}}": _most(container, 'container_id!=""')}, "watt", stacked=True),
        lines("By workload", "Power of containers, pods, services and other cgroups, each without those inside it; the ten that took most.",
              {"{{instance}} {{workload_type}} {{workload_name}}": _most("instance, workload_type, workload_name")},
              "watt", 12, stacked=True),
        lines("By process", "Power of processes inside their workload, where attribution.processes is set.",
              {"{{instance}} {{process_executable_name}} {{process_pid}}": f"topk(10, {processes})"}, "watt", 12),
    ]  # fmt: skip


def _zones() -> Iterable[Builder[Panel]]:
    power = {_OF_ZONE: f"max by ({_ZONE}) (rapl_zone_power_watts{{}})"}
    limits = {f"{_OF_ZONE} {{{{rapl_constraint}}}}": f"max by ({_ZONE}, rapl_constraint) (rapl_zone_power_limit_watts{{}})"}
    steps = {f"{_OF_ZONE} resets": f"sum by ({_ZONE}) (increase(rapl_zone_resets_total{{}}[]))",
             f"{_OF_ZONE} wraps": f"sum by ({_ZONE}) (increase(rapl_zone_wraps_total{{}}[]))"}  # fmt: skip
    return [
        lines("Power of zones", "Every zone of RAPL and its relatives. Zones contain each other: not to be added up.", power, "watt"),
        lines("Power limits", "What the platform allows each zone; they change when somebody changes them.", limits, "watt"),
        lines("Resets and wraps", "A wrap is usual; a reset is a step that no power explains: its energy is not known.", steps, "short"),
        rows("Host", "Power of whole hosts, where a sensor has it.", "hw_host_power_watts{}", ("instance", "hw_id"), "Power", unit="watt"),
    ]  # fmt: skip


def build() -> Dashboard:
    """Energy and workloads."""
    about = "Energy of processors, memory and GPUs by zone, component and workload, as otel-hostmetrics sees it."
    panels = {"Overview": _now(), "Workloads": _workloads(), "Zones": _zones()}
    return dashboard("otel-hostmetrics-energy", "Energy and workloads", about, ["energy"], "rapl_available", panels)
