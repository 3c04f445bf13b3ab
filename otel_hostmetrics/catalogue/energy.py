"""What is measured of energy: the zones of RAPL and its relatives.

The first part keeps the names of the Go exporter ``cpu_exporter``. ``hw.energy`` and ``hw.power`` are in hardware.py.
"""

from __future__ import annotations

from otel_hostmetrics.catalogue import hardware
from otel_hostmetrics.catalogue.model import Kind, Metric

ZONE, DOMAIN, INTERFACE, PACKAGE, CONSTRAINT = "rapl.zone", "rapl.domain", "rapl.interface", "rapl.package", "rapl.constraint"
_ZONE = (ZONE, DOMAIN, INTERFACE)

POWER_WATTS = Metric(
    "rapl_power_watts", Kind.GAUGE, "W",
    "Power by zone: package_0, package_0_core, ...; core, uncore and dram are the sums over all packages. No core of AMD's, see "
    "rapl.zone.energy.",
    "as hw.power", ("zone",), origin="cpu_exporter", integer=False,
)  # fmt: skip
AVAILABLE = Metric(
    "rapl_available", Kind.GAUGE, "", "Whether energy counters are read: 0 on a host that has none; absent where they may not be read.",
    "the source's zones", origin="cpu_exporter",
)  # fmt: skip
ZONES_DISCOVERED = Metric(
    "rapl_zones_discovered", Kind.GAUGE, "", "Zones found, each once: not the second view of a zone by another interface.",
    "the source's zones", origin="cpu_exporter",
)  # fmt: skip
EXPORTER_INFO = Metric(
    "cpu_exporter_info", Kind.GAUGE, "", "Version of the exporter; always 1.", "this agent", ("version", "language"), origin="cpu_exporter",
)  # fmt: skip

ENERGY = Metric(
    "rapl.zone.energy", Kind.COUNTER, "J",
    "Energy by zone, since this agent began. Zones contain each other and may be seen by two interfaces: not to be summed. AMD counts "
    "each core by itself, of which Linux shows one: lead-core.",
    "powercap energy_uj; perf power/energy-*/; hwmon energyN_input; MSR_*_ENERGY_STATUS; else power integrated over time",
    _ZONE, (PACKAGE,), integer=False,
)  # fmt: skip
POWER = Metric(
    "rapl.zone.power", Kind.GAUGE, "W", "Power by zone, the mean over the last window of at least a second.", "rapl.zone.energy", _ZONE,
    (PACKAGE,), integer=False,
)  # fmt: skip
WRAPS = Metric(
    "rapl.zone.wraps", Kind.COUNTER, "{wrap}", "How often the zone's counter began again from zero because it was full.",
    "energy_uj against max_energy_range_uj", _ZONE, (PACKAGE,),
)  # fmt: skip
RESETS = Metric(
    "rapl.zone.resets", Kind.COUNTER, "{reset}",
    "Steps of the counter that no power explains, and gaps too long to know how often it wrapped. They add no energy.",
    "rapl.plausible_power", _ZONE, (PACKAGE,),
)  # fmt: skip
POWER_LIMIT = Metric(
    "rapl.zone.power.limit", Kind.GAUGE, "W", "Power limit in force, by constraint.", "powercap constraint_N_power_limit_uw",
    (*_ZONE, CONSTRAINT), (PACKAGE,), integer=False,
)  # fmt: skip
POWER_MAX = Metric(
    "rapl.zone.power.max", Kind.GAUGE, "W", "Highest power limit the hardware names for the constraint.",
    "powercap constraint_N_max_power_uw", (*_ZONE, CONSTRAINT), (PACKAGE,), integer=False,
)  # fmt: skip
LIMIT_WINDOW = Metric(
    "rapl.zone.power.limit.window", Kind.GAUGE, "s", "Time over which the mean power must stay below the limit.",
    "powercap constraint_N_time_window_us", (*_ZONE, CONSTRAINT), (PACKAGE,), integer=False,
)  # fmt: skip
LIMIT_ENABLED = Metric(
    "rapl.zone.power.limit.enabled", Kind.GAUGE, "", "1 if the zone's power limits are enforced.", "powercap enabled", _ZONE, (PACKAGE,),
)  # fmt: skip

SEED = (POWER_WATTS, AVAILABLE, ZONES_DISCOVERED, EXPORTER_INFO)
ALL = (*SEED, *hardware.ENERGETIC, ENERGY, POWER, WRAPS, RESETS, POWER_LIMIT, POWER_MAX, LIMIT_WINDOW, LIMIT_ENABLED)
