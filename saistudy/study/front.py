"""The front page: the README shows the generated tables. It imports next to nothing."""

from saistudy.paths import ROOT, results, write_text


def readme() -> None:
    """Put the tables of all profiles between the markers of the README, the study's own first."""
    path = ROOT / "README.md"
    start, end = "<!-- table: generated -->", "<!-- /table -->"
    head, rest = path.read_text().split(start)
    tail = rest.split(end)[1]
    tables = [results(p) / "table.md" for p in ("h200", "mini", "demo")]
    body = "\n".join(t.read_text() for t in tables if t.is_file())
    write_text(path, f"{head}{start}\n{body}\n{end}{tail}")
