"""Names of enumerators; that they are the kernel's is tested live."""

from __future__ import annotations

import pytest

from otel_hostmetrics.kernel.bpf_names import ATTACH_TYPES, LINK_TYPES, MAP_TYPES, PROGRAM_TYPES, name_of


@pytest.mark.parametrize(
    ("table", "number", "name"),
    [
        (PROGRAM_TYPES, 2, "kprobe"),
        (PROGRAM_TYPES, 32, "netfilter"),
        (MAP_TYPES, 10, "lru_percpu_hash"),
        (MAP_TYPES, 33, "arena"),
        (LINK_TYPES, 12, "uprobe_multi"),
        (ATTACH_TYPES, 46, "tcx_ingress"),
        (ATTACH_TYPES, 57, "trace_uprobe_session"),
    ],
)
def test_known_numbers(table: tuple[str, ...], number: int, name: str) -> None:
    assert name_of(table, number) == name


@pytest.mark.parametrize("number", [-1, 1000])
def test_a_number_beyond_the_table_is_shown_as_the_number(number: int) -> None:
    assert name_of(MAP_TYPES, number) == str(number)


@pytest.mark.parametrize("table", [PROGRAM_TYPES, MAP_TYPES, LINK_TYPES, ATTACH_TYPES])
def test_no_name_twice(table: tuple[str, ...]) -> None:
    assert len(set(table)) == len(table)
