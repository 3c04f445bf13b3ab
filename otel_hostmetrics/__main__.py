"""``python -m otel_hostmetrics``."""

from __future__ import annotations

from otel_hostmetrics.cli import main

if __name__ == "__main__":
    main()
