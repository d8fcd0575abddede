"""The audit: every committed run by its own checks, what holds between runs, and the manifest."""

from dataclasses import dataclass, field
from pathlib import Path

from saistudy.paths import Refusal, results
from saistudy.study import agreement, claims, record
from saistudy.study.audit import chain, executed, manifest, recomputed, replay

TRAINED = ("stage1", "stage2", "finetune")


@dataclass
class Audited:
    """What was looked at, what was found wrong (sentences), and what could not be computed again."""

    name: str
    found: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)


def run(profile: str, name: str, settled: list | None = None) -> Audited:
    """A run by its own checks: notebook, record and the files beside them.

    Args:
        settled: the claims as settled now; without it the cells of `claims` are not computed again.
    """
    folder, seen = results(profile) / name, Audited(f"{profile}/{name}")
    try:
        told, book = record.read_record(profile, name), executed.read(folder / "run.ipynb")
        seen.found += _whole(profile, name, told, book)
        if told["notebook"] in TRAINED:
            _training(profile, folder, told, book, seen)
        else:
            seen.found += replay.findings(book, replay.names_of(profile, told, book, settled))
    except Exception as error:  # a file that cannot be read is a finding, whatever is wrong with it
        seen.found.append(f"it cannot be checked: {type(error).__name__}: {error}")
    return seen


def _whole(profile: str, name: str, told: dict, book) -> list[str]:
    """What holds of every executed notebook."""
    named = {"run": name, "profile": profile}
    found = [f"its record says {key} {told[key]}" for key in named if told[key] != named[key]]
    found += executed.order(book) + executed.source(book, told) + executed.committed(told)
    return found + executed.parameters(book, told)


def _training(profile: str, folder: Path, told: dict, book, seen: Audited) -> None:
    """What holds of a training beside: files, metrics, costs, and what its notebook shows."""
    found, seen.absent = recomputed.files(folder, told)
    seen.found += found + executed.epoch_lines(book, folder, told) + executed.arguments(folder, told)
    seen.found += recomputed.costs(folder, told) + recomputed.counts(profile, told)
    seen.found += recomputed.copies(profile, told)
    if not seen.absent and not found:
        seen.found += recomputed.metrics(profile, told)
    seen.found += replay.findings(book, replay.names_of(profile, told, book))


def between(profile: str, absent: bool) -> Audited:
    """What holds between the runs of a profile; without their predictions, of its table, less."""
    seen = Audited(f"{profile}, tables and chain")
    try:
        records, told = record.read_records(profile), agreement.read(profile)
        seen.found += chain.parents(records) + chain.inputs(records) + chain.band(profile, records, told)
        seen.found += chain.described_only(profile, records) if absent else chain.made(profile)
    except Exception as error:
        seen.found.append(f"it cannot be checked: {type(error).__name__}: {error}")
    return seen


def profiles() -> list[str]:
    """The profiles that have results."""
    return [name for name in ("demo", "mini", "h200") if any(results(name).glob("*/record.json"))]


def everything(profiles: list[str]) -> list[Audited]:
    """All that is committed of these profiles, the ledger, the front page and the manifest.

    Raises:
        Refusal: a profile has no results.
    """
    names = {profile: _names(profile) for profile in profiles}
    settled, found = claims.settle_all(claims.read()), []
    for profile in profiles:
        runs = [run(profile, name, settled) for name in names[profile]]
        absent = any(one.absent for one in runs)
        found += [*runs, between(profile, absent)]
    root = results(profiles[0]).parent
    found.append(Audited("ledger", chain.ledger(settled)))
    found.append(Audited("README", chain.front_page()))
    return [*found, Audited(manifest.NAME, manifest.findings(root, profiles))]


def _names(profile: str) -> list[str]:
    """Run folders of a profile."""
    folder = results(profile)
    names = {path.parent.name for name in ("record.json", "run.ipynb") for path in folder.glob(f"*/{name}")}
    if not names:
        raise Refusal(f"there is no run of {profile} to audit: make study PROFILE={profile} makes some.")
    return sorted(names)


def sentences(seen: list[Audited]) -> str:
    """The audit in lines: each finding, what could not be computed again, and a sum."""
    lines = [f"{one.name}: {line}" for one in seen for line in one.found]
    lines += [f"{one.name}: not computed again, for {line}" for one in seen for line in one.absent]
    n, wrong = len(seen), sum(bool(one.found) for one in seen)
    return "\n".join([*lines, f"{n} parts were audited, something is wrong with {wrong} of them"])
