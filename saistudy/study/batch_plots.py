"""Plots of the notebook large-batch: F1 by batch under each rate and warm-up, and F1 by seconds."""

import matplotlib.pyplot as plt
import pandas as pd

from saistudy.study.batch_arms import RULES as SCALED
from saistudy.study.plots import style
from saistudy.training.batches import Run

BASES = {"epochs": "at equal epochs", "time": "at equal time"}


def by_batch(arms: list[dict], base: str, note: str):
    """Mean test F1 of each arm by its batch, a colour per rule and a line per warm-up; the base dotted.

    At the base's batch all rules are one, so that their lines begin there.

    Args:
        arms: of `batch_results.rows`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
    frame = pd.DataFrame(arms)
    frame["step"] = frame["batch"] * frame["accumulate"]
    frame["rule"] = frame["rule"].where(frame["accumulate"] == 1, "accumulated, " + frame["rule"])
    for ax, (basis, title) in zip(axes, BASES.items(), strict=True):
        _lines(ax, frame, f"f1_equal_{basis}")
        ax.axhline(frame.set_index("arm").loc[base, f"f1_equal_{basis}"], color="black", ls=":", lw=0.8)
        steps = sorted(frame["step"].unique())
        ax.set_xscale("log", base=2)
        ax.set_xticks(steps, [str(n) for n in steps])
        ax.minorticks_off()
        ax.set(xlabel="sequences a step", title=title)
    axes[0].set(ylabel="test F1 (macro), mean over seeds")
    axes[1].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(f"{note}; dotted: {base}", fontsize=9)
    return figure


def _lines(ax, frame: pd.DataFrame, column: str) -> None:
    """A line per rule and warm-up, from the base's batch on where there is one of that warm-up."""
    of_rule, of_warmup = style(frame["rule"]), style(frame["warmup_epochs"].astype(str))
    first = frame["batch"] == frame["step"].min()
    for (rule, warmup), mine in frame.groupby(["rule", "warmup_epochs"], sort=False):
        begin = frame[first & (frame["accumulate"] == 1) & (frame["warmup_epochs"] == warmup)]
        line = pd.concat([begin, mine]).drop_duplicates("arm") if rule in SCALED else mine
        look = of_warmup[str(warmup)] | {"color": of_rule[rule]["color"]}
        ax.plot(line["step"], line[column], **look, ms=5, label=f"{rule}, warm-up {warmup}")


def by_seconds(runs: dict[str, dict[int, Run]], names: list[str], note: str, ax=None):
    """Validation F1 of the named arms by seconds of training, a line per seed."""
    ax = ax or plt.subplots(figsize=(8, 3.2), layout="constrained")[1]
    for name, look in style(names).items():
        for i, run in enumerate(runs[name].values()):
            seconds, f1 = ([row[key] for row in run.rows] for key in ("train_s", "val_f1"))
            ax.plot(seconds, f1, **look, ms=3, lw=1.1, label=None if i else name)
    ax.set(xlabel="seconds of training", ylabel="val F1 (macro)", title=note, xlim=(0, None))
    ax.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return ax
