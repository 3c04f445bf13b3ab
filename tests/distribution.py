"""Distributions as pip leaves them behind: a module and its dist-info in a folder that is on the path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(site: Path, name: str, version: str, entry_points: Mapping[str, str], **modules: str) -> dict[str, str]:
    """Put *modules* (source by name) and the plugins they offer into *site*. Returns the environment that finds them."""
    site.mkdir(exist_ok=True)
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)
    metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{plugin} = {value}\n" for plugin, value in entry_points.items()]
    (metadata / "entry_points.txt").write_text("[otel_hostmetrics.sources]\n" + "".join(lines))
    return {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
