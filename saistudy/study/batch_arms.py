"""The grid of the notebook large-batch: batches by learning-rate rules by warm-ups, and its trainings."""

from pathlib import Path

from saistudy.training import batches, sequences
from saistudy.training.batches import Recipe, Run

RULES = ("none", "sqrt", "linear")
WRITTEN = "as written"  # the seed's own rate at its batch
CONTROL = 1e4  # times the seed's rate: no network survives it
SPLITS = {"train": 1, "val": 2, "test": 3}  # each drawn with its own seed


def name(batch: int, rule: str, warmup_epochs: int, accumulate: int = 1) -> str:
    """Name of an arm: `384 sqrt w3`, and where passes are accumulated `6x64 as written w3`."""
    passes = f"{accumulate}x" if accumulate > 1 else ""
    return f"{passes}{batch} {rule} w{warmup_epochs}"


def arms(p) -> dict[str, dict]:
    """Every arm by name, the base first: batch, rule, lr, warmup_epochs, accumulate.

    At the base's batch all rules are one. The seed's own rate stands beside the rules at the seed's batch,
    with each warm-up, and once more with that batch accumulated from the base's.

    Args:
        p: parameters of the notebook: base_batch, base_lr, batch_sizes, warmups, and of `train` batch_size,
            learning_rate, warmup_epochs.
    """
    batch, lr, warmup = (p.train[key] for key in ("batch_size", "learning_rate", "warmup_epochs"))
    rows = [(p.base_batch, "none", p.base_lr, w, 1) for w in p.warmups]
    for b in (b for b in p.batch_sizes if b != p.base_batch):
        for rule in RULES:
            rows += [(b, rule, batches.rate(rule, p.base_lr, p.base_batch, b), w, 1) for w in p.warmups]
    rows += [(batch, WRITTEN, lr, w, 1) for w in p.warmups]
    rows += [(p.base_batch, WRITTEN, lr, warmup, batch // p.base_batch)]
    keys = ("batch", "rule", "lr", "warmup_epochs", "accumulate")
    named = [dict(zip(keys, row, strict=True)) for row in rows]
    return {name(r["batch"], r["rule"], r["warmup_epochs"], r["accumulate"]): r for r in named}


def named(p) -> dict[str, str]:
    """The arms that the decisions name: base, written (the seed's), cold (the same without warm-up), parts
    (accumulated)."""
    batch, warmup = p.train["batch_size"], p.train["warmup_epochs"]
    return {
        "base": name(p.base_batch, "none", 0),
        "written": name(batch, WRITTEN, warmup),
        "cold": name(batch, WRITTEN, 0),
        "parts": name(p.base_batch, WRITTEN, warmup, batch // p.base_batch),
    }


def planned(p) -> list[tuple[str, int]]:
    """Arm and seed of each training in its order: for every seed the base first, whose seconds others get."""
    every, own = arms(p), named(p)
    few = [own["base"], own["written"]]
    seeds = list(dict.fromkeys([*p.seeds, *p.decided_seeds]))
    return [(arm, seed) for seed in seeds for arm in every if seed in p.seeds or arm in few]


def data(p, seed: int) -> dict:
    """Train, val and test of a seed on the device; the test set is the same for every seed."""
    common = {"task": p.task, "network": p.network, "class_weights": p.train["class_weights"]}
    sizes = {"train": p.train_n, "val": p.val_n, "test": p.test_n}
    drawn = {split: 0 if split == "test" else seed for split in SPLITS}
    return {
        split: sequences.make(sizes[split], **common, seed=10 * drawn[split] + number, device=p.device)
        for split, number in SPLITS.items()
    }


def trained(p, folder: Path) -> dict[str, dict[int, Run]]:
    """Every planned training: arm to seed to its run, with a line on each. Each goes on for the seconds that
    the base of its seed took; the seed's own arm commits checkpoints. A finished training is kept below
    `folder` and not done again: what was killed goes on with the training that it was at."""
    every, own, runs, tables = arms(p), named(p), {}, {}
    order = planned(p)
    for number, (arm, seed) in enumerate(order, start=1):
        if seed not in tables:
            tables = {seed: data(p, seed)}
        base = runs.get(own["base"], {}).get(seed)
        recipe = Recipe(**{key: every[arm][key] for key in Recipe._fields})
        how = {"least_s": base.rows[-1]["train_s"]} if base else {}
        place = folder / f"{arm}-s{seed}".replace(" ", "-")
        if arm == own["written"]:
            how["folder"] = place.with_name(f"{place.name}-checkpoints")
        if not (run := batches.kept(place)):
            run = batches.train(tables[seed], p.network, p.train, recipe, seed, **how)
            batches.keep(run, place)
        runs.setdefault(arm, {})[seed] = run
        _tell(number, len(order), f"{arm}, seed {seed}", run)
    return runs


def control(p, data: dict) -> Run:
    """The seed's arm without warm-up at `CONTROL` times its rate: would a divergence be seen at all?"""
    lr = CONTROL * p.train["learning_rate"]
    return batches.train(data, p.network, p.train, Recipe(p.train["batch_size"], lr), p.seeds[0])


def _tell(number: int, of: int, what: str, run: Run) -> None:
    """A line on a training; on the first, how long all will take: the others get its seconds, too."""
    spent_s = run.rows[-1]["train_s"]
    print(f"{number} of {of}: {what}: {len(run.rows)} epochs, {spent_s:.1f} s, {run.ended}", flush=True)
    if number == 1:
        print(f"about {(of - 1) * spent_s / 60:.1f} min to go, scoring not counted", flush=True)
