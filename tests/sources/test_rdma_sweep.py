"""Whatever fails and heals between cycles: each value belongs to its counter, and only what failed is missing."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hosts.gentree import generate
from tests.sources.rdma_host import opened, port, stats

_FILES = [
    ("mlx5_0", "counters/port_xmit_data"),
    ("mlx5_0", "counters/symbol_error"),  # slow
    ("mlx5_0", "hw_counters/out_of_sequence"),
    ("mlx5_1", "counters/port_xmit_data"),
    ("mlx5_1", "hw_counters/np_cnp_sent"),
]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(_FILES), st.booleans(), max_size=3), min_size=1, max_size=8), st.sampled_from((5, 30, 4096))
)
def test_each_value_is_its_counters(cycles: list[dict[tuple[str, str], bool]], descriptors: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        generate(root, 2)
        known = {(device, path.name): path for device in ("mlx5_0", "mlx5_1") for path in port(root, device).glob("*counters/*")}
        known = {key: path for key, path in known.items() if path.name != "lifespan"}
        for number, path in enumerate(known.values()):
            path.write_text(f"{number}\n")
        failed = set()
        with opened(root, descriptors=descriptors) as source:
            for cycle in cycles:
                for (device, name), readable in cycle.items():
                    path = port(root, device) / name
                    path.write_text(f"{list(known.values()).index(path)}\n" if readable else "N/A (no PMA)\n")
                    failed |= {path} if not readable else set()
                found = {(device, name): value for (device, _, name), value in stats(source.read()).items()}
                true = {key: number for number, (key, path) in enumerate(known.items()) if path.read_text().strip().isdecimal()}
                assert found.items() <= true.items()
                assert found.keys() >= {key for key, path in known.items() if path not in failed}
