"""What batches, rates and warm-ups gained and lost against the base: at equal epochs and at equal time."""

import math

import numpy as np
import pandas as pd

from saistudy.evaluation import layers, stats
from saistudy.study import paired
from saistudy.training import confusion
from saistudy.training.batches import CAPPED, DIVERGED, Run

BASES = ("epochs", "time")


def chosen(run: Run, epochs: float = math.inf, seconds: float = math.inf) -> int:
    """Position of the epoch with the highest val F1 (the first of equals) among those that end within
    `epochs` and within `seconds` of training; the first epoch stands where not even that one does."""
    within = [r["val_f1"] for r in run.rows if r["epoch"] <= epochs and r["train_s"] <= seconds]
    return within.index(max(within)) if within else 0


def picked(run: Run, basis: str, epochs: int, base: Run) -> int:
    """The epoch of a run that a comparison with a base reads."""
    return chosen(run, epochs) if basis == "epochs" else chosen(run, seconds=base.rows[-1]["train_s"])


class Judge:
    """Differences in test F1 to the base arm, over seeds and over the test sequences.

    Args:
        runs: arm to seed to Run, the base's among them.
        epochs: what "equal epochs" means.
        resamples_n: bootstrap resamples of the test sequences, drawn once for all arms.
    """

    def __init__(self, runs: dict[str, dict[int, Run]], base: str, epochs: int, resamples_n: int):
        self.runs, self.base, self.epochs = runs, base, epochs
        test_n = next(iter(runs[base].values())).confusions.shape[1]
        names = [str(i) for i in range(test_n)]
        self.weights = stats.group_bootstrap_weights(names, resamples_n, np.random.default_rng(0))
        self.test_n = test_n

    def f1(self, arm: str, basis: str) -> dict[int, float]:
        """Test F1 of each seed of an arm."""
        return {seed: run.rows[self._at(run, basis, seed)]["test_f1"] for seed, run in self.runs[arm].items()}

    def compare(self, arm: str, basis: str, among: list[int] | None = None) -> dict:
        """Paired differences in test F1, their mean and its interval over seeds and sequences together.

        Args:
            among: the seeds to look at; without it all that both have.
        """
        mine, base = self.f1(arm, basis), self.f1(self.base, basis)
        seeds = [seed for seed in among or mine if seed in mine and seed in base]
        seen = {
            "differences": [mine[seed] - base[seed] for seed in seeds],
            "resampled": np.mean([self._resampled(arm, basis, seed) for seed in seeds], axis=0),
            "groups_n": self.test_n,
        }
        mean, low, high = layers.interval(**seen)
        told = {
            "arm": arm,
            "basis": basis,
            "seeds_n": len(seeds),
            "f1": float(np.mean([mine[seed] for seed in seeds])),
        }
        return told | {"delta": mean, "delta_low": low, "delta_high": high} | seen

    def decide(self, members: list[str], margin: float, alpha: float) -> list[dict]:
        """The comparisons of the family, each arm on both bases, with the verdicts of `paired.judge`."""
        family = [self.compare(arm, basis) for arm in members for basis in BASES]
        paired.judge(family, margin, alpha)
        return [{key: one for key, one in row.items() if key != "resampled"} for row in family]

    def capped(self, arm: str, seed: int) -> bool:
        """Whether a run came to `epochs_most` before the seconds of the base: it had less than equal time."""
        run, base = self.runs[arm][seed], self.runs[self.base][seed]
        return run.ended == CAPPED and run.rows[-1]["train_s"] < base.rows[-1]["train_s"]

    def _at(self, run: Run, basis: str, seed: int) -> int:
        return picked(run, basis, self.epochs, self.runs[self.base][seed])

    def _resampled(self, arm: str, basis: str, seed: int) -> np.ndarray:
        """Difference in F1 to the base on each resample, (R,)."""
        sides = [self.runs[one][seed] for one in (arm, self.base)]
        found = [run.confusions[self._at(run, basis, seed)] for run in sides]
        mine, base = (confusion.f1_macro(np.tensordot(self.weights, one, 1)) for one in found)
        return mine - base


def rows(judge: Judge, arms: dict[str, dict], seeds: list[int]) -> list[dict]:
    """A row per arm: what it is, how it ended, F1 and difference on both bases, pace; ready for a record.

    Args:
        seeds: of the grid. F1 and differences are over these, which all arms have; what else is counted is
            of all runs.
    """
    found = []
    for arm, about in arms.items():
        runs = list(judge.runs[arm].values())
        row = {"arm": arm, **about, "runs_n": len(runs), "diverged_n": sum(_diverged(run) for run in runs)}
        row["loss_peak"] = _finite(max(r["loss"] for run in runs for r in run.rows))
        row["grad_norm_peak"] = _finite(max(r["grad_norm"] for run in runs for r in run.rows))
        for basis in BASES:
            told = judge.compare(arm, basis, seeds)
            keys = ("f1", "delta", "delta_low", "delta_high")
            row |= {f"{key}_equal_{basis}": told[key] for key in keys}
        row["epoch_s"] = float(np.median([run.rows[-1]["train_s"] / len(run.rows) for run in runs]))
        row["epochs_n"] = [len(run.rows) for run in runs]
        row["capped_n"] = sum(judge.capped(arm, seed) for seed in judge.runs[arm])
        row["peak_gib"] = max((run.peak_gib for run in runs if run.peak_gib), default=None)
        found.append(row)
    return found


def _diverged(run: Run) -> bool:
    return run.ended == DIVERGED


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def warmup(arms: list[dict]) -> list[dict]:
    """Whether a warm-up is needed, for each batch and rule: diverged runs by warm-up, and the rule's answer.

    "needed": every run without one diverges and none with one; "not needed": none diverges without; "does not
    help": all diverge, with and without; else "depends".
    """
    found = []
    frame = pd.DataFrame([row for row in arms if row["accumulate"] == 1])
    for (batch, rule), mine in frame.groupby(["batch", "rule"], sort=False):
        cold, warm = mine[mine["warmup_epochs"] == 0], mine[mine["warmup_epochs"] > 0]
        shares = [float(one["diverged_n"].sum() / one["runs_n"].sum()) for one in (cold, warm)]
        counts = {f"w{r.warmup_epochs}": f"{r.diverged_n} of {r.runs_n}" for r in mine.itertuples()}
        found.append({"batch": batch, "rule": rule, "lr": mine["lr"].iloc[0], **counts})
        found[-1]["warm-up"] = _needed(*shares)
    return found


def _needed(cold: float, warm: float) -> str:
    if not cold:
        return "not needed"
    if cold == 1 and warm in (0, 1):
        return "does not help" if warm else "needed"
    return "depends"


def table(arms: list[dict]) -> pd.DataFrame:
    """The arms as the notebook shows them: F1 and difference with its interval, at equal epochs and time."""
    shown = {}
    for row in arms:
        cells = {"lr": f"{row['lr']:.3g}", "diverged": f"{row['diverged_n']} of {row['runs_n']}"}
        for basis in BASES:
            cells[f"F1, equal {basis}"] = round(row[f"f1_equal_{basis}"], 3)
            cells[f"to base, equal {basis}"] = delta(*(row[f"{k}_equal_{basis}"] for k in DELTA))
        cells |= {"s/epoch": f"{row['epoch_s']:.3g}", "epochs": ", ".join(map(str, row["epochs_n"]))}
        cells["short of the time"] = f"{row['capped_n']} of {row['runs_n']}"
        shown[row["arm"]] = cells
    return pd.DataFrame.from_dict(shown, orient="index")


DELTA = ("delta", "delta_low", "delta_high")


def delta(mean: float, low: float | None, high: float | None) -> str:
    """A difference with its interval, where there is one."""
    bounds = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
    return f"{mean:+.3f}{bounds}"


def curves(runs: dict[str, dict[int, Run]]) -> list[dict]:
    """Every epoch of every run as a row for the record; a figure that is no number is None."""
    return [
        {"arm": arm, "seed": seed, **{k: _finite(v) if isinstance(v, float) else v for k, v in row.items()}}
        for arm, by_seed in runs.items()
        for seed, run in by_seed.items()
        for row in run.rows
    ]
