"""The front page: the README shows the generated tables. It imports next to nothing."""

from saistudy.paths import ROOT, results, write_text

README = ROOT / "README.md"
SHOWN = ("h200", "mini")  # the demo's says only that the study works: results/demo/table.md


def readme() -> None:
    """Put the tables of real images between the markers of the README, the study's own first."""
    write_text(README, page())


def page() -> str:
    """The README with the tables as they stand in the results."""
    start, end = "<!-- table: generated -->", "<!-- /table -->"
    head, rest = README.read_text(encoding="utf-8").split(start)
    tables = [results(profile) / "table.md" for profile in SHOWN]
    body = "\n".join(table.read_text(encoding="utf-8") for table in tables if table.is_file())
    return f"{head}{start}\n{body}\n{end}{rest.split(end)[1]}"
