"""The BPF subsystem. The first row is the dashboard of bpf-metrics-exporter, panel by panel."""

from __future__ import annotations

from collections.abc import Iterable

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel

from dashboards.panels import dashboard, lines, rows, stats

_LEVEL = " The counter's name is bpf-metrics-exporter's; it is a level, so it is summed, not rated."
_STATISTICS = " Needs statistics: bpf.stats: on or sampled."
_PROGRAM = "instance, bpf_program_id, bpf_program_name"
_MAP = "instance, bpf_map_id, bpf_map_name"
_PROGRAM_LEGEND = "{{instance}} {{bpf_program_name}} {{bpf_program_id}}"
_MAP_LEGEND = "{{instance}} {{bpf_map_name}} {{bpf_map_id}}"
_MAP_COLUMNS = ("instance", "bpf_map_id", "bpf_map_name", "bpf_map_type")

# Per second of measuring: an agent may have statistics on for only a part of the time. Without its clock (statistics
# switched on by the sysctl) they are on all the time.
_CLOCK = "on (job, instance) group_left () (sum by (job, instance) (rate(bpf_stats_time_seconds_total{}[])) > 0)"
_RUN_TIME = f"sum by (job, {_PROGRAM}) (rate(bpf_program_run_time_seconds_total{{}}[]))"
_RUN_COUNT = f"sum by (job, {_PROGRAM}) (rate(bpf_program_run_count_total{{}}[]))"
_SHARE = f"({_RUN_TIME} / {_CLOCK} or {_RUN_TIME})"
_RUNS = f"({_RUN_COUNT} / {_CLOCK} or {_RUN_COUNT})"


def _inventory() -> Iterable[Builder[Panel]]:
    entities = {"Programs": "sum(bpf_program_info{})", "Maps": "sum(bpf_map_info{})", "Links": "sum(bpf_link_info{})"}
    program_columns = ("instance", "id", "name", "type", "tag", "gpl_compatible", "load_time", "map_ids")
    map_columns = ("instance", "id", "name", "type", "key_size", "value_size", "max_entries", "flags")
    verified = {"instructions": "sum(bpf_program_verified_instructions_total{})"}
    translated = {"bytes": "sum(bpf_program_size_translated_bytes_total{})"}
    memory = {"bytes": "sum(bpf_program_mem_bytes_total{})"}
    return [
        stats("Subsystem Entities", "BPF programs, maps and links that are loaded.", entities),
        rows("Loaded Program Info", "Each loaded program.", "bpf_program_info{}", program_columns),
        rows("Loaded Map Info", "Each map.", "bpf_map_info{}", map_columns, width=14),
        rows("Loaded Link Info", "Each link.", "bpf_link_info{}", ("instance", "id", "prog_id", "type"), width=10),
        lines("Verified Instructions", "Instructions the verifier processed for all programs." + _LEVEL, verified, "short"),
        lines("Translated Size", "Size of the BPF code of all loaded programs." + _LEVEL, translated, "bytes"),
        lines("Program Memory", "Memory that all loaded programs take." + _LEVEL, memory, "bytes"),
    ]


def _by_type() -> Iterable[Builder[Panel]]:
    programs = {"{{bpf_program_type}}": "sum by (bpf_program_type) (bpf_programs{})"}
    maps = {"{{bpf_map_type}}": "sum by (bpf_map_type) (bpf_maps{})"}
    links = {"{{bpf_link_type}}": "sum by (bpf_link_type) (bpf_links{})"}
    return [
        lines("Programs by type", "Loaded programs, by type.", programs, "short", stacked=True),
        lines("Maps by type", "Maps, by type.", maps, "short", stacked=True),
        lines("Links by type", "Links, by type.", links, "short", stacked=True),
    ]


def _run_time() -> Iterable[Builder[Panel]]:
    duration = f"topk(10, {_SHARE} / ({_RUNS} > 0))"
    misses = f"topk(10, sum by ({_PROGRAM}) (rate(bpf_program_recursion_misses_total{{}}[])))"
    enabled = {"{{instance}}": "max by (instance) (bpf_stats_enabled{})"}
    return [
        lines("Share of a CPU", "CPU time of the ten busiest programs; 100 % is one CPU." + _STATISTICS,
              {_PROGRAM_LEGEND: f"topk(10, {_SHARE})"}, "percentunit"),
        lines("Runs", "Runs per second of the ten programs that run most." + _STATISTICS, {_PROGRAM_LEGEND: f"topk(10, {_RUNS})"}, "ops"),
        lines("Mean run duration", "Time one run takes, ten slowest programs; some 50 ns of it are the measuring." + _STATISTICS,
              {_PROGRAM_LEGEND: duration}, "s"),
        lines("Share of a CPU, all programs", "CPU time of all programs of a host; 100 % is one CPU." + _STATISTICS,
              {"{{instance}}": f"sum by (instance) ({_SHARE})"}, "percentunit"),
        lines("Recursion misses", "Runs skipped because the program was already running on that CPU.", {_PROGRAM_LEGEND: misses}, "ops"),
        lines("Statistics on", "1 while the kernel measures run time and run count.", enabled, "none"),
    ]  # fmt: skip


def _programs() -> Iterable[Builder[Panel]]:
    memory = f"topk(10, sum by ({_PROGRAM}) (bpf_program_memory_usage_bytes{{}}))"
    code = {"{{bpf_program_code}}": "sum by (bpf_program_code) (bpf_program_code_size_bytes{})"}
    complexity = f"topk(10, max by ({_PROGRAM}) (bpf_program_instructions_verified{{}}))"
    return [
        lines("Memory of programs", "Memory of the ten largest programs.", {_PROGRAM_LEGEND: memory}, "bytes"),
        lines("Code size", "Size of all programs as BPF code (translated) and as machine code (jited).", code, "bytes"),
        lines("Verifier complexity", "Instructions the verifier processed, ten most complex programs; it refuses one at a million.",
              {_PROGRAM_LEGEND: complexity}, "short"),
    ]  # fmt: skip


def _maps() -> Iterable[Builder[Panel]]:
    fill = f"topk(10, max by ({_MAP}) (bpf_map_utilization_ratio{{}}))"
    entries = f"topk(10, sum by ({_MAP}) (bpf_map_entries{{}}))"
    memory = f"topk(10, sum by ({_MAP}) (bpf_map_memory_usage_bytes{{}}))"
    fullest, largest = "sort_desc(topk(25, bpf_map_utilization_ratio{}))", "sort_desc(topk(25, bpf_map_entries_limit{}))"
    return [
        lines("Fill level", "Share of a map's entries in use, ten fullest hash maps.", {_MAP_LEGEND: fill}, "percentunit"),
        lines("Entries", "Entries in the ten largest hash maps.", {_MAP_LEGEND: entries}, "short"),
        lines("Memory of maps", "Memory of the ten largest maps; an estimate before Linux 6.4.", {_MAP_LEGEND: memory}, "bytes"),
        rows("Fullest maps", "Hash maps by the share of their entries in use.", fullest, _MAP_COLUMNS, "share in use", 12, "percentunit"),
        rows("Limits", "Maps by the entries they may hold.", largest, _MAP_COLUMNS, "entries", 12),
    ]


def _owners() -> Iterable[Builder[Panel]]:
    holders = "sum by (instance, bpf_holder_comm, process_pid, bpf_object_type) (bpf_object_holder{})"
    holder_columns = ("instance", "bpf_holder_comm", "process_pid", "bpf_object_type")
    cgroup_columns = ("instance", "bpf_cgroup_path", "bpf_attach_type", "bpf_program_id", "bpf_program_name")
    link_columns = ("bpf_link_id", "bpf_link_type", "bpf_attach_type", "bpf_program_id", "bpf_program_name")
    target_columns = ("bpf_target_name", "bpf_interface_name", "bpf_cgroup_path")
    use_columns = ("instance", "bpf_program_id", "bpf_program_name", "bpf_map_id", "bpf_map_name")
    return [
        rows("Holders", "Processes, and the descriptors of BPF objects each has open.", holders, holder_columns, "descriptors", 12),
        rows("Cgroup programs without a holder", "Only a cgroup keeps them alive: device filters of containers, accounting of systemd.",
             'bpf_cgroup_program{bpf_program_held="false"}', cgroup_columns, width=12),
        rows("Attachments", "Where each link attaches its program.", "bpf_link_attachment{}", ("instance", *link_columns, *target_columns)),
        rows("Pins", "Paths that keep an object alive without a process.", "bpf_object_pin{}",
             ("instance", "bpf_pin_path", "bpf_object_type", "bpf_object_id"), width=12),
        rows("Program uses map", "Which program uses which map.", "bpf_program_map{}", use_columns, width=12),
    ]  # fmt: skip


def build() -> Dashboard:
    """The dashboard, ready to be written."""
    panels = {
        "Subsystem": _inventory(),
        "By type": _by_type(),
        "Run time": _run_time(),
        "Programs": _programs(),
        "Maps": _maps(),
        "Owners and attachments": _owners(),
    }
    about = "What is loaded in the kernel's BPF subsystem, what it costs and who holds it."
    return dashboard("otel-hostmetrics-ebpf", "eBPF Subsystem Metrics", about, ["ebpf"], "bpf_programs", panels)
