"""The front page: the README shows the generated tables. It imports next to nothing."""

from saistudy.paths import ROOT, results, write_text

README = ROOT / "README.md"
START, END = "<!-- table: generated -->", "<!-- /table -->"
SHOWN = ("h200", "mini")  # the demo's says only that the study works: results/demo/table.md


def readme() -> None:
    """Put the tables of real images between the markers of the README, the study's own first."""
    write_text(README, page())


def page() -> str:
    """The README with the tables as they stand in the results."""
    head, rest = README.read_text(encoding="utf-8").split(START)
    tables = [results(profile) / "table.md" for profile in SHOWN]
    body = "\n".join(table.read_text(encoding="utf-8") for table in tables if table.is_file())
    return f"{head}{START}\n{body}\n{END}{rest.split(END)[1]}"
