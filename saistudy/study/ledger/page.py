"""The ledger as a Markdown page that can be read on its own."""

import pandas as pd

TITLES = {
    "000": "Seed 000: the hybrid configuration for an H200 (two stages, /dev/shm)",
    "001": "Seed 001: accelerators of a training",
    "002": "Seed 002: a large batch on an H100",
    "003": "Seed 003: a go or no-go before a long run",
    "004": "Seed 004: fine-tuning sized to the GPU",
    "repo": "The original repository (AlterMundi/sai-net-detector)",
}
HEAD = """# The ledger: what the seeds claim, and what is known of it

Five documents, the seeds, and the repository that the first of them comes from claim figures, settings and
comparisons. This page holds each claim in our own words with its verdict. Made by `notebooks/claims.ipynb`
from `params/claims.csv`; every verdict is computed, by functions of `saistudy.study.claims`.

## How many
"""
MEANING = """
- **holds**, **fails**: an input of this repository says so: published counts, arithmetic on the sentence's
  own figures, the pinned Ultralytics or torch tried live on a CPU, or records of an H200.
  A setting *holds* when a trainer set up with the seed's configuration as printed acts with that value;
  that says nothing of whether it is a good one.
- **contradicted within the seeds**: another sentence of the same document says otherwise; which one is true
  is not thereby known.
- **not yet measured**: beside it stands the command that would settle it. "planned" marks what has no command
  yet; "(issue 6)" are the notebooks on speed.
- **not measurable**: beside it stands the reason.

No verdict on accuracy rests on the synthetic demo or on mini, none on memory or speed of an H200 on a CPU.
`make study PROFILE=h200` (with `FULL=1`: the preregistered grid) needs an H200 and the published data.
L is a line of the seed, A01 to X08 name a claim, K1 to K30 a contradiction inside the first seed. A range
after a figure bounds it.

## What fails
"""
TWICE = """
## What the first seed says twice

Side by side, in the order of the lines; then what is true.
"""
COLUMNS = ["id", "L", "claim", "claimed", "verdict", "found", "on what grounds, or what would tell"]


def markdown(frame: pd.DataFrame, counts: pd.DataFrame, contradictions: pd.DataFrame) -> str:
    """The page: how many verdicts, what they mean, what fails, the contradictions, each seed's claims."""
    known = f"\n{(frame['evidence'] != '').sum()} of {len(frame)} claims have their verdict: "
    known += "they hold, they fail, or their own document contradicts them."
    parts = [HEAD, table(counts.reset_index()), known, MEANING, failures(frame)]
    parts += [TWICE, table(_twice(contradictions))]
    for seed, title in TITLES.items():
        rows = frame[frame["seed"] == seed].to_dict("records")
        parts += [f"\n## {title}\n", table(pd.DataFrame([_shown(row) for row in rows], columns=COLUMNS))]
    return "\n".join(parts) + "\n"


def failures(frame: pd.DataFrame) -> str:
    """A line for each claim that fails: what is claimed, and what was found."""
    rows = frame[frame["verdict"] == "fails"].to_dict("records")
    return "\n".join(f"- {row['id']}: {row['claim']}. Found: {_found(row)}." for row in rows)


def _twice(contradictions: pd.DataFrame) -> pd.DataFrame:
    rows = contradictions.to_dict("records")
    told = [{**row, "true": ": ".join(filter(None, (row["true"], row["evidence"])))} for row in rows]
    return pd.DataFrame(told)[["id", "lines", "said", "true", "claims"]]


def _shown(row: dict) -> dict:
    """A row of the page: what was found with its unit, evidence and conditions in one cell."""
    grounds = "; ".join(text for text in (row["evidence"], row["conditions"]) if text)
    cells = row["id"], row["line"], row["claim"], row["quantity"], row["verdict"], _found(row), grounds
    return dict(zip(COLUMNS, cells, strict=True))


def _found(row: dict) -> str:
    """The value with the unit of what is claimed, and its bounds where it has any."""
    unit = row["quantity"].partition(" ")[2] if row["value"] and row["value"][0].isdigit() else ""
    bounds = f" ({row['low']} to {row['high']})" if row["low"] or row["high"] else ""
    return f"{row['value']}{bounds} {unit}".rstrip()


def table(frame: pd.DataFrame) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [list(frame.columns), ["---"] * len(frame.columns)]
    lines += [[_cell(cell) for cell in row] for row in frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(cell: object) -> str:
    return str(cell).replace("|", "\\|").replace("\n", " ")
