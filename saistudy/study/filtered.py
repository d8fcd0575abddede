"""The ledger as a page: what its verdicts mean, and one table of all claims that a reader can filter.

The few lines of script stand in the page itself; without script every claim is shown.
"""

import html
from pathlib import Path

import pandas as pd

from saistudy.study import pages

CHOSEN = ("seed", "verdict")
SHOWN = {
    "id": "id",
    "seed": "seed",
    "line": "L",
    "claim": "claim",
    "quantity": "claimed",
    "verdict": "verdict",
    "value": "found",
    "evidence": "evidence",
    "conditions": "on what grounds, or what would tell",
}
SCRIPT = """
<script>
const form = document.querySelector(".filter"), rows = [...document.querySelectorAll("#claims tbody tr")];
function show() {
  const words = form.elements.words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let n = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const fits = (name) => !form.elements[name].value || row.dataset[name] === form.elements[name].value;
    row.hidden = !(fits("seed") && fits("verdict") && words.every((word) => text.includes(word)));
    n += !row.hidden;
  }
  form.elements.shown.value = n + " of " + rows.length + " claims";
}
form.hidden = false;
form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
show();
</script>
"""


def body(page: Path, csv: Path) -> str:
    """HTML of the ledger.

    Args:
        page: claims.md, whose text before the claims of the first seed is kept.
        csv: claims.csv, every claim with its verdict.
    """
    frame = pd.read_csv(csv, dtype=str, keep_default_na=False)
    told = page.read_text(encoding="utf-8").split("\n## Seed", 1)[0]
    parts = [pages.markdown(told, {}), "<h2>Every claim</h2>", _form(frame), _claims(frame), SCRIPT]
    return "\n".join(parts)


def _form(frame: pd.DataFrame) -> str:
    """What a reader filters by, hidden where there is no script."""
    chosen = [_choice(name, frame[name].unique()) for name in CHOSEN]
    words = '<label>words <input type="search" name="words"></label>'
    return f'<form class="filter" hidden>{"".join(chosen)}{words}<output name="shown"></output></form>'


def _choice(name: str, values) -> str:
    options = "".join(f"<option>{html.escape(value)}</option>" for value in sorted(values))
    return f'<label>{name} <select name="{name}"><option value="">all</option>{options}</select></label>'


def _claims(frame: pd.DataFrame) -> str:
    """The table: a row a claim, its seed and verdict beside it for the filter."""
    head = "".join(f"<th>{html.escape(title)}</th>" for title in SHOWN.values())
    rows = "\n".join(_row(row) for row in frame.to_dict("records"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table>"
    return f'<div id="claims">{pages.scrolled(table)}</div>'


def _row(row: dict) -> str:
    found = f"{row['value']} ({row['low']} to {row['high']})" if row["low"] or row["high"] else row["value"]
    cells = {key: html.escape(text) for key, text in (row | {"value": found}).items()}
    kind = row["verdict"].split()[0]
    data = "".join(f' data-{name}="{cells[name]}"' for name in CHOSEN)
    marks = {"verdict": f' class="{html.escape(kind)}"'}
    return f"<tr{data}>" + "".join(f"<td{marks.get(key, '')}>{cells[key]}</td>" for key in SHOWN) + "</tr>"
