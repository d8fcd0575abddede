"""The study as a static site: question and state, tables, figures, the ledger, each run's notebook.

It stands in `work/report`: it follows from `results/` as a whole and can be made again at any time.
"""

import html
import json
import shutil
from pathlib import Path

import pandas as pd

from saistudy.paths import Refusal, results, work, write_text
from saistudy.study import filtered, front, pages, printed

PROFILES = ("h200", "mini", "demo")  # the study first
INDEX, LEDGER = "index.html", "ledger.html"
CAPTIONS = {
    "forest": "Each comparison of the table, with its paired 95 % interval where there is one.",
    "learning": "Stage 1: AP on val by epoch, a colour per arm, a thin line per seed.",
    "learning-stage2": "Stage 2: AP on val by epoch, a colour per class handling, a thin line per seed.",
    "patience": "Every shorter patience, replayed on each run: epochs saved, and AP given away on val.",
    "precision-recall": "Precision by recall on test, mean over seeds.",
    "ap-by-size": "AP50 by the size of the object in the original image.",
    "alarms-per-day": "After stage 2: images with smoke found, by the false alarms allowed a camera and day.",
    "sizes": "Every model tested at every size of the study.",
    "cost": "Hours of training beside AP50.",
}


def write(profiles: list[str]) -> Path:
    """Write the site of some profiles, of all that have results where none is named, whole or not at all.

    Returns:
        Its first page.

    Raises:
        Refusal: a profile has no executed notebook, or the folder cannot be written to.
    """
    profiles = profiles or [name for name in PROFILES if books(name)] or ["demo"]
    for profile in profiles:
        if profile not in PROFILES:
            raise Refusal(f"there is no profile '{profile}': choose one of {', '.join(PROFILES)}.")
        if not books(profile):
            raise Refusal(f"there is no run of {profile} to report: make study PROFILE={profile} makes some.")
    target = work("report").absolute()
    part, old = (target.with_name(f".report.{end}") for end in ("part", "old"))
    for stale in (part, old):
        shutil.rmtree(stale, ignore_errors=True)
    _fill(part, profiles)
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target / INDEX


def sentence(index: Path) -> str:
    """Where the site is, and how large."""
    files = [path for path in index.parent.rglob("*") if path.is_file()]
    pages_n = sum(path.suffix == ".html" for path in files)
    return f"{index}: {pages_n} pages, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB"


def books(profile: str) -> dict[str, Path]:
    """The executed notebooks of a profile by run."""
    return {path.parent.name: path for path in sorted(results(profile).glob("*/run.ipynb"))}


def _fill(site: Path, profiles: list[str]) -> None:
    root = results(profiles[0]).parent
    claims = (root / "claims.md", root / "claims.csv")
    ledger = {"The ledger": LEDGER} if all(path.is_file() for path in claims) else {}
    ways = {"The study": INDEX} | ledger
    write_text(site / pages.STYLE_FILE, pages.STYLE)
    if ledger:
        write_text(site / LEDGER, pages.page("The ledger", filtered.body(*claims), LEDGER, ways))
    sections = []
    for profile in profiles:
        rows = [_run(site, profile, *item, ways) for item in books(profile).items()]
        sections.append(_profile(site, profile, rows))
    body = "\n".join([_question(profiles, bool(ledger)), _contents(profiles, ledger), *sections])
    write_text(site / INDEX, pages.page("saistudy: the report", body, INDEX, ways))


def _run(site: Path, profile: str, run: str, book: Path, ways: dict[str, str]) -> dict:
    """Write the page of a run, its record beside it; its row in the list of runs."""
    place, record = f"{profile}/{run}.html", book.with_name("record.json")
    (site / profile).mkdir(exist_ok=True)
    row = {"run": f'<a href="{place}">{html.escape(run)}</a>'}
    head = f"<p>Run <b>{html.escape(run)}</b> of profile {html.escape(profile)}, without its code.</p>"
    if record.is_file():
        told = json.loads(record.read_text(encoding="utf-8"))
        shutil.copyfile(record, site / profile / f"{run}.json")
        head += printed.asked(told) + f'<p><a href="{run}.json">the whole record</a></p>'
        row |= _told(told) | {"record": f'<a href="{profile}/{run}.json">record</a>'}
    body = head + printed.body(book, site, place)
    write_text(site / place, pages.page(f"{run} ({profile})", body, place, ways))
    return row


def _told(record: dict) -> dict:
    """What a record says of its run in the list of runs: text, escaped."""
    seconds, device = (record["cost"].get(key) for key in ("train_s", "device"))
    row = {
        "notebook": record["notebook"],
        "seed": record["params"].get("seed", ""),
        "question": record["params"].get("question", ""),
        "training": f"{seconds / 60:.1f} min, {device}" if seconds else "",
        "written": record["written"][:10],
    }
    return {key: html.escape(str(value)) for key, value in row.items()}


def _question(profiles: list[str], ledger: bool) -> str:
    """The head of the README: question and state, its links turned to places of the site."""
    known = {f"results/{profile}/table.md": f"#{profile}" for profile in profiles}
    known |= {"results/claims.md": LEDGER} if ledger else {}
    return pages.markdown(front.README.read_text(encoding="utf-8").split(front.START)[0], known)


def _contents(profiles: list[str], ledger: dict[str, str]) -> str:
    """Links to the parts of the first page and to the ledger."""
    lines = [f'<li><a href="#{p}">Profile {p}</a>: table, figures, runs</li>' for p in profiles]
    told = '<li><a href="{}">{}</a>: every claim with its verdict</li>'
    lines += [told.format(place, name) for name, place in ledger.items()]
    return f"<ul>{''.join(lines)}</ul>"


def _profile(site: Path, profile: str, runs: list[dict]) -> str:
    """Table, figures and runs of a profile; what is not there is said."""
    table = results(profile) / "table.md"
    parts = [f'<h2 id="{profile}">Profile {profile}</h2>']
    if table.is_file():
        parts.append(f'<div class="wide">{pages.markdown(table.read_text(encoding="utf-8"), {})}</div>')
        shutil.copyfile(table.with_suffix(".csv"), site / profile / "table.csv")
        parts.append(f'<p><a href="{profile}/table.csv">the table as csv</a></p>')
    else:
        parts.append("<p>No table yet: it is written when the ablation has run.</p>")
    parts += [_figure(site, profile, path) for path in _pictures(profile)]
    listed = pages.table(pd.DataFrame(runs).fillna(""), escape=False)
    return "\n".join([*parts, f"<h3>Runs of {profile}</h3>", listed])


def _pictures(profile: str) -> list[Path]:
    """The figures of a profile, in the order of the captions, others after them."""
    known = list(CAPTIONS)
    place = {name: i for i, name in enumerate(known)}
    found = (results(profile) / "figures").glob("*.png")
    return sorted(found, key=lambda path: (place.get(path.stem, len(known)), path.stem))


def _figure(site: Path, profile: str, path: Path) -> str:
    folder = site / profile / "figures"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(path, folder / path.name)
    told = html.escape(CAPTIONS.get(path.stem, path.stem))
    image = f'<img src="{profile}/figures/{path.name}" alt="{profile}: {told}" loading="lazy">'
    return f"<figure>{image}<figcaption>{told}</figcaption></figure>"
