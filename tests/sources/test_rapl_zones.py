"""Names of zones, and zones that show the same energy twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_hostmetrics.sources.rapl.meters import Counter, Scale
from otel_hostmetrics.sources.rapl.zones import DRAM, PACKAGE, PSYS, Zone, deduplicated, domain


def opened() -> Counter:
    raise AssertionError("names need no counter")


def zone(kind: str, package: str, interface: str = "intel-rapl", key: str = "") -> Zone:
    return Zone(key or f"/{interface}/{package}/{kind}", kind, package, interface, Scale(1e-6), opened)


def test_domains_by_the_kernels_names() -> None:
    assert domain("package-1") == (PACKAGE, "1")
    assert domain("package-0-die-3") == (PACKAGE, "0-die-3")
    assert domain("psys") == (PSYS, "")
    assert domain("psys-1") == (PSYS, "1")
    assert domain("dram") == (DRAM, "")
    assert domain("package-x") == ("package-x", "")


def test_names() -> None:
    names = {zone(kind, package).name: zone(kind, package).seed_name for kind, package in (
        (PACKAGE, "0"), (DRAM, "1"), ("core", "0-die-1"), (PSYS, ""), (PSYS, "1"), ("cluster", ""),
    )}  # fmt: skip
    assert names == {
        "package-0": "package_0",
        "package-1/dram": "package_1_dram",
        "package-0-die-1/core": "package_0_die_1_core",
        "psys": "psys",
        "psys-1": "psys_1",
        "cluster": "cluster",
    }


def test_sockets_are_never_merged_and_msr_goes_before_mmio() -> None:
    zones = [zone(PACKAGE, "1"), zone(PACKAGE, "0", "intel-rapl-mmio"), zone(PACKAGE, "10"), zone(PACKAGE, "0")]
    assert [(each.name, each.interface, each.counted) for each in deduplicated(zones, False)] == [
        ("package-0", "intel-rapl", True),
        ("package-1", "intel-rapl", True),
        ("package-10", "intel-rapl", True),
        ("package-0", "intel-rapl-mmio", False),
    ]


KINDS = st.sampled_from([PACKAGE, DRAM, "core", PSYS, "soc"])
PACKAGES = st.sampled_from(["", "0", "1", "0-die-0", "0-die-1", "1-die-0"])
INTERFACES = st.sampled_from(["intel-rapl", "intel-rapl-mmio", "arm-scmi"])
ZONES = st.lists(st.tuples(KINDS, PACKAGES, INTERFACES), max_size=12).map(
    lambda all_: [zone(kind, package, interface, f"/zone{number}") for number, (kind, package, interface) in enumerate(all_)]
)


@given(ZONES, st.booleans(), st.randoms())
def test_order_does_not_matter_and_nothing_is_counted_twice(zones: list[Zone], merge: bool, random: object) -> None:
    result = deduplicated(zones, merge)
    counted = [each.name for each in result if each.counted]
    assert len(counted) == len(set(counted))
    series = [(each.name, each.interface) for each in result]
    assert len(series) == len(set(series))  # no two series of rapl.zone.energy are the same
    shuffled = list(zones)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert deduplicated(shuffled, merge) == result
    assert {each.key for each in result} == {each.key for each in zones}
