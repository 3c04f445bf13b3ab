"""``python -m tests.machine.guest FOLDER CHAPTER...``: run chapters in the machine, each into FOLDER/CHAPTER.json.

A chapter is a module of this package with ``run(parameters, record)``. It only gathers; the tests on the host judge. What fails
ends its chapter and is told there, beside what was gathered until then.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def main(folder: Path, chapters: list[str]) -> int:
    """0 unless a chapter could not even be loaded."""
    parameters = json.loads((folder / "parameters.json").read_text(encoding="utf-8"))
    for name in chapters:
        record: dict[str, Any] = {}
        start = time.monotonic()
        try:
            importlib.import_module(f"tests.machine.guest.{name}").run(parameters, record)
        except Exception:  # whatever it is, the host tells it
            record["error"] = traceback.format_exc()
        record["seconds"] = time.monotonic() - start
        (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
