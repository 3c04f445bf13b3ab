"""``python -m tests.machine CHAPTER FOLDER``: run one chapter in a machine and keep everything it gathered."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.machine.kernel import Kernel
from tests.machine.machine import run_chapters


def main(chapter: str, folder: Path) -> int:
    """0, or 1 if something is missing."""
    kernel = Kernel.current()
    if missing := kernel.missing():
        print(missing, file=sys.stderr)  # noqa: T201
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    finished = run_chapters(kernel, (chapter,), folder)
    print(f"{folder}: {finished.seconds:.0f} s")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
