"""All benchmarks: ``python -m tests.perf`` from the checkout, as root. Under five minutes; a minute with --quick."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.perf import agent, attribution, bpf, export, gpu, rapl, rdma, workloads
from tests.perf.measure import FULL, QUICK, Mode, Report, machine, table

PARTS: dict[str, Callable[[Mode], Report]] = {
    "bpf": bpf.run,
    "export": export.run,
    "agent": agent.run,
    "attribution": attribution.run,
    "gpu": gpu.run,
    "rapl": rapl.run,
    "rdma": rdma.run,
    "workloads": workloads.run,
}


def main() -> int:
    """1 if --quick finds a target missed by far, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure, of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds; exit with 1 if a target is missed by far")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured there")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    mode, whole = QUICK if options.quick else FULL, Report()
    here = machine()
    print(f"{here}\nCPU time, median of {mode.rounds} interleaved rounds; * = target missed", flush=True)
    begin = time.monotonic()
    for part in options.parts or PARTS:
        report = PARTS[part](mode)
        print(table(report.results), *(f"\nnot measured: {each}" for each in report.skipped), sep="", flush=True)
        whole.results += report.results
        whole.skipped += report.skipped
    print(f"\n{time.monotonic() - begin:.0f} s, {machine()}")
    if options.json:
        found = {"machine": here, "quick": mode.quick, "skipped": whole.skipped, "results": [each.as_json() for each in whole.results]}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    failures = [failure for each in whole.results if (failure := each.failure())] if mode.quick else []
    print(*failures, sep="\n", file=sys.stderr, end="\n" if failures else "")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
