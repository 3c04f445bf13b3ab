"""What is measured of the BPF subsystem.

The first part keeps the names, labels and instrument kinds of bpf-metrics-exporter. Its sizes and limits are
counters there, so they are here; the second part has the same facts, and many more, correctly typed.
"""

from __future__ import annotations

from otel_hostmetrics.catalogue.model import Combine, Kind, Metric
from otel_hostmetrics.catalogue.process import CREATION_TIME, EXECUTABLE, PID

# What stays on a series when bpf.aggregate groups objects by type and name.
GROUP_ATTRIBUTES = frozenset({
    "name", "type", "type_name", "gpl_compatible", "key_size", "value_size", "max_entries", "flags",
    "bpf.program.name", "bpf.program.type", "bpf.program.code", "bpf.map.name", "bpf.map.type", "bpf.link.type", "bpf.attach.type",
    "bpf.interface.name", "bpf.target.name", "bpf.cgroup.path", "bpf.program.held", "bpf.object.type", "bpf.holder.comm",
})  # fmt: skip

_SEED_PROGRAM = ("id", "name", "type")
_SEED_MAP = ("id", "name", "type")
_PROGRAM = ("bpf.program.id", "bpf.program.name", "bpf.program.type")
_MAP = ("bpf.map.id", "bpf.map.name", "bpf.map.type")


def _seed(name: str, kind: Kind, description: str, reads: str, attributes: tuple[str, ...], unit: str = "", **more: object) -> Metric:
    combine = Combine.LIVE if kind is Kind.COUNTER else Combine.SUM
    options = {"combine": combine, **more}
    return Metric(name, kind, unit, description, reads, attributes, origin="bpf-metrics-exporter", **options)  # type: ignore[arg-type]


PROGRAM_INFO = _seed(
    "bpf_program_info", Kind.GAUGE, "Information on each loaded BPF program; always 1.", "bpf_prog_info",
    ("id", "name", "type", "tag", "gpl_compatible", "load_time"), optional=("map_ids", "tag_decimal", "full_name", "uid", "btf_id"),
)  # fmt: skip
MAP_INFO = _seed(
    "bpf_map_info", Kind.GAUGE, "Information on each loaded BPF map; always 1.", "bpf_map_info",
    ("id", "name", "type", "key_size", "value_size", "max_entries", "flags"), optional=("type_name", "btf_id", "frozen"),
)  # fmt: skip
LINK_INFO = _seed(
    "bpf_link_info", Kind.GAUGE, "Information on each BPF link; always 1.", "bpf_link_info", ("id", "prog_id", "type"),
    optional=("type_name",),
)  # fmt: skip
PROGRAM_LOAD_TIME = _seed(
    "bpf_program_load_time", Kind.GAUGE, "Unix time at which the program was loaded, in seconds.",
    "bpf_prog_info.load_time and the time of boot", _SEED_PROGRAM, combine=Combine.MAX,
)  # fmt: skip
PROGRAM_JITED = _seed(
    "bpf_program_size_jitted_bytes", Kind.COUNTER, "Size of the program's machine code.", "bpf_prog_info.jited_prog_len", _SEED_PROGRAM,
    "By",
)  # fmt: skip
PROGRAM_TRANSLATED = _seed(
    "bpf_program_size_translated_bytes", Kind.COUNTER, "Size of the program's BPF code.", "bpf_prog_info.xlated_prog_len", _SEED_PROGRAM,
    "By",
)  # fmt: skip
PROGRAM_MEM = _seed(
    "bpf_program_mem_bytes", Kind.COUNTER, "Memory the program takes.", "fdinfo memlock, bpf_prog.pages", _SEED_PROGRAM, "By",
)  # fmt: skip
PROGRAM_VERIFIED = _seed(
    "bpf_program_verified_instructions", Kind.COUNTER, "Instructions the verifier processed.", "bpf_prog_info.verified_insns (5.16)",
    _SEED_PROGRAM,
)  # fmt: skip
MAP_KEY_SIZE = _seed("bpf_map_key_size", Kind.COUNTER, "Size of a key in bytes.", "bpf_map_info.key_size", _SEED_MAP)
MAP_VALUE_SIZE = _seed("bpf_map_value_size", Kind.COUNTER, "Size of a value in bytes.", "bpf_map_info.value_size", _SEED_MAP)
MAP_MAX_ENTRIES = _seed("bpf_map_max_entries", Kind.COUNTER, "Entries the map may hold.", "bpf_map_info.max_entries", _SEED_MAP)

PROGRAM_COUNT = Metric(
    "bpf.programs", Kind.UPDOWNCOUNTER, "{program}", "Loaded programs.", "BPF_PROG_GET_NEXT_ID, iter/bpf_prog", ("bpf.program.type",),
)  # fmt: skip
MAP_COUNT = Metric("bpf.maps", Kind.UPDOWNCOUNTER, "{map}", "Loaded maps.", "BPF_MAP_GET_NEXT_ID, iter/bpf_map", ("bpf.map.type",))
LINK_COUNT = Metric("bpf.links", Kind.UPDOWNCOUNTER, "{link}", "Links.", "BPF_LINK_GET_NEXT_ID, iter/bpf_link (5.19)", ("bpf.link.type",))

PROGRAM_RUN_TIME = Metric(
    "bpf.program.run.time", Kind.COUNTER, "s", "Time the program ran while statistics were on.", "bpf_prog_info.run_time_ns (5.1)",
    _PROGRAM, integer=False,
)  # fmt: skip
PROGRAM_RUN_COUNT = Metric(
    "bpf.program.run.count", Kind.COUNTER, "{run}", "Runs of the program while statistics were on.", "bpf_prog_info.run_cnt (5.1)",
    _PROGRAM,
)  # fmt: skip
PROGRAM_MISSES = Metric(
    "bpf.program.recursion.misses", Kind.COUNTER, "{run}", "Runs skipped because the program was already running on that CPU.",
    "bpf_prog_info.recursion_misses (5.12)", _PROGRAM,
)  # fmt: skip
PROGRAM_MEMORY = Metric(
    "bpf.program.memory.usage", Kind.UPDOWNCOUNTER, "By", "Memory the program takes.", "fdinfo memlock, bpf_prog.pages", _PROGRAM,
)  # fmt: skip
PROGRAM_CODE = Metric(
    "bpf.program.code.size", Kind.UPDOWNCOUNTER, "By", "Size of the program's code: translated (BPF) and jited (machine).",
    "bpf_prog_info.xlated_prog_len, .jited_prog_len", (*_PROGRAM, "bpf.program.code"),
)  # fmt: skip
PROGRAM_INSTRUCTIONS = Metric(
    "bpf.program.instructions.verified", Kind.GAUGE, "{instruction}", "Instructions the verifier processed; the limit is one million.",
    "bpf_prog_info.verified_insns (5.16)", _PROGRAM, combine=Combine.MAX,
)  # fmt: skip
STATS_ENABLED = Metric(
    "bpf.stats.enabled", Kind.GAUGE, "", "1 while the kernel measures run time and run count because of this agent or the sysctl.",
    "BPF_ENABLE_STATS (5.8), kernel.bpf_stats_enabled",
)  # fmt: skip
STATS_TIME = Metric(
    "bpf.stats.time", Kind.COUNTER, "s", "Time during which this agent had statistics on; divide run time and count by it.",
    "BPF_ENABLE_STATS (5.8)", integer=False,
)  # fmt: skip

MAP_ENTRIES = Metric(
    "bpf.map.entries", Kind.UPDOWNCOUNTER, "{entry}", "Entries in the map; hash maps only.", "kfunc bpf_map_sum_elem_count (6.6)", _MAP,
)  # fmt: skip
MAP_LIMIT = Metric("bpf.map.entries.limit", Kind.UPDOWNCOUNTER, "{entry}", "Entries the map may hold.", "bpf_map_info.max_entries", _MAP)
MAP_UTILIZATION = Metric(
    "bpf.map.utilization", Kind.GAUGE, "1", "Share of the map's entries in use, 0 to 1; hash maps only.",
    "bpf_map_sum_elem_count / max_entries", _MAP, integer=False, combine=Combine.MAX,
)  # fmt: skip
MAP_MEMORY = Metric(
    "bpf.map.memory.usage", Kind.UPDOWNCOUNTER, "By", "Memory the map takes; an estimate before 6.4.",
    "fdinfo memlock (needs CAP_SYS_ADMIN)", _MAP,
)  # fmt: skip

LINK_ATTACHMENT = Metric(
    "bpf.link.attachment", Kind.GAUGE, "", "Where a link attaches its program; always 1.", "bpf_link_info",
    ("bpf.link.id", "bpf.link.type"),
    ("bpf.program.id", "bpf.program.name", "bpf.attach.type", "bpf.interface.index", "bpf.interface.name", "bpf.cgroup.id",
     "bpf.cgroup.path", "bpf.netns.inode", "bpf.target.name", "bpf.target.id", "bpf.map.id", PID),
)  # fmt: skip
PROGRAM_MAP = Metric(
    "bpf.program.map", Kind.GAUGE, "", "A program uses a map; always 1.", "bpf_prog_info.map_ids", ("bpf.program.id", "bpf.map.id"),
    ("bpf.program.name", "bpf.map.name"), combine=Combine.NONE,
)  # fmt: skip
OBJECT_HOLDER = Metric(
    "bpf.object.holder", Kind.GAUGE, "{file_descriptor}", "Descriptors by which a process holds an object.",
    "iter/task_file (5.8), /proc/PID/fdinfo",
    ("bpf.object.type", "bpf.object.id", PID, CREATION_TIME, "bpf.holder.comm"), (EXECUTABLE,),
)  # fmt: skip
OBJECT_PIN = Metric(
    "bpf.object.pin", Kind.GAUGE, "", "A path of a bpffs under which an object is pinned; always 1.", "BPF_OBJ_GET",
    ("bpf.object.type", "bpf.object.id", "bpf.pin.path"), combine=Combine.NONE,
)  # fmt: skip
CGROUP_PROGRAM = Metric(
    "bpf.cgroup.program", Kind.GAUGE, "", "A program is attached to a cgroup; always 1. held=false: no process holds it.",
    "BPF_PROG_QUERY", ("bpf.cgroup.path", "bpf.attach.type", "bpf.program.id"), ("bpf.program.name", "bpf.program.held"),
)  # fmt: skip

SEED = (
    PROGRAM_INFO, MAP_INFO, LINK_INFO, PROGRAM_LOAD_TIME, PROGRAM_JITED, PROGRAM_TRANSLATED, PROGRAM_MEM, PROGRAM_VERIFIED,
    MAP_KEY_SIZE, MAP_VALUE_SIZE, MAP_MAX_ENTRIES,
)  # fmt: skip
ALL = (
    *SEED, PROGRAM_COUNT, MAP_COUNT, LINK_COUNT, PROGRAM_RUN_TIME, PROGRAM_RUN_COUNT, PROGRAM_MISSES, PROGRAM_MEMORY, PROGRAM_CODE,
    PROGRAM_INSTRUCTIONS, STATS_ENABLED, STATS_TIME, MAP_ENTRIES, MAP_LIMIT, MAP_UTILIZATION, MAP_MEMORY, LINK_ATTACHMENT, PROGRAM_MAP,
    OBJECT_HOLDER, OBJECT_PIN, CGROUP_PROGRAM,
)  # fmt: skip
