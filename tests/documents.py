"""The parts of the documents that are made from the code. ``python -m tests.documents`` writes them, test_documents.py compares."""

from __future__ import annotations

from pathlib import Path

from otel_hostmetrics.catalogue import CATALOGUE
from otel_hostmetrics.config.flags import FLAGS
from otel_hostmetrics.reference import markdown

ROOT = Path(__file__).parents[1]


def options() -> str:
    """The options of the command line with the variables that set the same."""
    rows = []
    for flag in FLAGS:
        names = ", ".join(f"`{name}`" for name in flag.names)
        section, _, key = flag.key_name.partition(".")
        variable = f"OTEL_HOSTMETRICS_{section.upper()}__{key.upper()}"
        cells = (names, f"`{variable}`", flag.key.description)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "| option | environment | what it sets |\n|--|--|--|\n" + "".join(rows)


def between(text: str, name: str, content: str) -> str:
    """*text* with *content* between the marks ``<!-- name -->`` and ``<!-- /name -->``."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    assert found, f"no mark {end}"
    return head + begin + content + end + tail


def generated() -> dict[Path, str]:
    """What each document should say."""
    readme, metrics = ROOT / "README.md", ROOT / "METRICS.md"
    return {
        readme: between(readme.read_text(), "options", options()),
        metrics: between(metrics.read_text(), "metrics", markdown(CATALOGUE)),
    }


if __name__ == "__main__":
    for path, text in generated().items():
        path.write_text(text)
