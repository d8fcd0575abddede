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

Made by `notebooks/claims.ipynb` from `params/claims.csv`; every verdict is computed. L is a line of a seed.

- **holds**, **fails**: an input of this repository says so: published counts, arithmetic on the sentence's
  own figures, the pinned Ultralytics or torch tried live on a CPU, or records of an H200.
  A setting *holds* when a trainer set up with the seed's configuration as printed acts with that value;
  that says nothing of whether it is a good one.
- **contradicted within the seeds**: another sentence of the same document says otherwise; which one is true
  is not thereby known.
- **not yet measured**: with the command that would settle it. "planned" marks one that does not exist yet.
- **not measurable**: with the reason.

No verdict on accuracy rests on the synthetic demo or on mini, none on memory or speed of an H200 on a CPU.
"""
COLUMNS = ["id", "line", "claim", "quantity", "verdict", "value", "conditions", "evidence"]


def markdown(frame: pd.DataFrame, counts: pd.DataFrame, contradictions: pd.DataFrame) -> str:
    """The page: what the verdicts mean, how many there are, each seed's claims, the contradictions."""
    parts = [HEAD, "## How many\n", table(counts.reset_index())]
    parts += ["\n## What the first seed says twice\n", table(contradictions)]
    for seed, title in TITLES.items():
        rows = frame[frame["seed"] == seed]
        shown = rows[COLUMNS].assign(value=[_value(row) for row in rows.to_dict("records")])
        parts += [f"\n## {title}\n", table(shown)]
    return "\n".join(parts) + "\n"


def _value(row: dict) -> str:
    """The value with its bounds where it has any."""
    return f"{row['value']} ({row['low']} to {row['high']})" if row["low"] or row["high"] else row["value"]


def table(frame: pd.DataFrame) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [list(frame.columns), ["---"] * len(frame.columns)]
    lines += [[_cell(cell) for cell in row] for row in frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(cell: object) -> str:
    return str(cell).replace("|", "\\|").replace("\n", " ")
