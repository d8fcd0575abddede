"""The report: a static site that needs no network, holds what the results hold, and is whole or not there."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from browser import Watched, browser  # noqa: F401 (a fixture)

from saistudy.__main__ import main
from saistudy.paths import ROOT, Refusal
from saistudy.study import filtered, printed, report

RESULTS = ROOT / "results"


class Page(HTMLParser):
    """What a page asks a browser to load, where its links lead, its ids, and the text of its table rows."""

    def __init__(self, path: Path):
        super().__init__()
        self.loads, self.links, self.ids, self.rows, self.scripts_n = [], [], set(), [], 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given["id"]} if "id" in given else set()
        self.scripts_n += tag == "script"
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        else:
            self.loads += [given[key] for key in ("src", "href", "srcset", "data") if key in given]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of the committed profile mini."""
    if not (RESULTS / "mini" / "table.md").is_file():
        pytest.skip("no results of mini in this checkout")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAISTUDY_WORK", str(tmp_path_factory.mktemp("work")))
        patch.delenv("SAISTUDY_RESULTS", raising=False)
        return report.write(["mini"]).parent


def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}


def test_it_is_small_and_every_run_has_its_page(site):
    bytes_n = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    assert bytes_n < 10e6
    runs = {path.parent.name for path in (RESULTS / "mini").glob("*/run.ipynb")}
    assert runs == {path.stem for path in (site / "mini").glob("*.html")} and len(runs) > 10


def test_nothing_is_loaded_from_elsewhere_and_every_link_leads_somewhere(site):
    known, checked_n = pages(site), 0
    for place, page in known.items():
        assert page.scripts_n == (place == report.LEDGER)
        for url in page.loads:
            assert url == "data:," or not urlsplit(url).scheme and not url.startswith("/"), (place, url)
        for url in [*page.loads, *page.links]:
            parts = urlsplit(url)
            if parts.scheme:
                assert url == "data:," or url in page.links and parts.scheme == "https", (place, url)
                continue
            target = (site / place).parent.joinpath(parts.path) if parts.path else site / place
            assert target.is_file(), (place, url)
            if parts.fragment:
                there = known[target.resolve().relative_to(site.resolve()).as_posix()]
                assert unquote(parts.fragment) in there.ids, (place, url)
            checked_n += 1
    assert checked_n > 300
    for text in (path.read_text() for path in site.rglob("*.css")):
        assert "url(" not in text and "@import" not in text


def test_a_page_shows_the_outputs_of_its_notebook_and_none_of_its_code(site):
    for run in ("896-s0", "stage2-896-s0", "ablation", "setup-shm"):
        book = json.loads((RESULTS / "mini" / run / "run.ipynb").read_text())
        text = (site / "mini" / f"{run}.html").read_text()
        code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
        data = [output["data"] for cell in code for output in cell["outputs"] if "data" in output]
        drawn = ["".join(one[kind]) for one in data for kind in ("image/png", "image/jpeg") if kind in one]
        hashes = [hashlib.sha256(base64.b64decode(image)).hexdigest() for image in drawn]
        shown = re.findall(r'<img alt="[^"]+: figure" src="\.\./(pictures/[^"]+)"', text)
        assert [hashlib.sha256((site / name).read_bytes()).hexdigest() for name in shown] == hashes
        # 896-s0 has galleries and curves, setup-shm its rates
        assert hashes and "from saistudy" not in text and "params.check" not in text
        lines = [line for cell in code for o in cell["outputs"] for line in o.get("text", [])]
        assert all(line.strip().replace("<", "&lt;").replace(">", "&gt;") in text for line in lines)


def test_the_first_page_has_the_question_the_table_and_every_figure(site):
    text, page = (site / report.INDEX).read_text(), pages(site)[report.INDEX]
    title = (ROOT / "README.md").read_text().splitlines()[0].removeprefix("# ")
    assert f"{title}<" in text.replace("\n", " ") and "<strong>State:" in text
    table = pd.read_csv(RESULTS / "mini" / "table.csv")
    head = next(row for row in page.rows if row[0] == "#")
    rows = [dict(zip(head, row, strict=True)) for row in page.rows if len(row) == len(head) and row != head]
    assert [row["#"] for row in rows] == [str(n) for n in table["number"]] != []
    shown = [row["AP50 (± sd over seeds)"].split()[0] for row in rows]
    assert shown == [f"{ap:.3f}" for ap in table["ap50"]]
    figures = {path.name for path in (RESULTS / "mini" / "figures").glob("*.png")}
    assert {Path(url).name for url in page.loads if "/figures/" in url} == figures


def test_the_ledger_holds_every_claim_with_its_verdict(site):
    claims = pd.read_csv(RESULTS / "claims.csv", dtype=str, keep_default_na=False)
    rows = [row for row in pages(site)[report.LEDGER].rows if len(row) == len(filtered.SHOWN)]
    shown = {row[0]: (row[3], row[5]) for row in rows[1:]}
    assert shown == {row.id: (row.claim, row.verdict) for row in claims.itertuples()}


def test_a_run_made_outside_git_says_so():
    record = json.loads((RESULTS / "mini/data/record.json").read_text())
    record["environment"]["git"]["commit"] = None
    assert "made outside git" in printed.asked(record)


def test_text_of_a_claim_is_text(tmp_path):
    row = dict.fromkeys(filtered.SHOWN, "") | {"low": "", "high": "", "verdict": 'a "b', "seed": "000"}
    pd.DataFrame([row | {"claim": "<script>alert(1)</script> a & b"}]).to_csv(tmp_path / "c.csv", index=False)
    (tmp_path / "c.md").write_text("# Ledger\n")
    text = filtered.body(tmp_path / "c.md", tmp_path / "c.csv")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; a &amp; b" in text and text.count("<script>") == 1
    assert 'data-verdict="a &quot;b"' in text


def test_a_profile_without_runs_and_a_broken_notebook_are_refused_and_the_site_stays(
    site, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SAISTUDY_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("SAISTUDY_WORK", str(tmp_path / "work"))
    with pytest.raises(Refusal, match="no run of demo to report: make study PROFILE=demo"):
        report.write([])
    run = tmp_path / "results" / "mini" / "data"
    shutil.copytree(RESULTS / "mini" / "data", run)
    assert main(["report", "mini"]) == 0
    told = capsys.readouterr().out
    assert (
        f"{tmp_path}/work/report/index.html: 2 pages, " in told
    )  # its own page; no ledger, and none is said
    first = (tmp_path / "work" / "report" / "index.html").read_bytes()
    assert b"No table yet" in first and b"ledger" not in first
    assert main(["report", "h200"]) == 2 and main(["report", "mini", "min"]) == 2
    assert "there is no profile 'min'" in capsys.readouterr().err
    (run / "run.ipynb").write_text("{")
    assert main(["report"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "run.ipynb cannot be read as a notebook" in told[0]
    assert (tmp_path / "work" / "report" / "index.html").read_bytes() == first


def test_in_a_browser_no_page_has_an_error_and_the_ledger_is_filtered(site, browser):  # noqa: F811
    seen = Watched(browser)
    for path in sorted(site.rglob("*.html")):
        seen.page.goto(path.as_uri())
        loaded = "[...document.images].map((i) => (i.loading = 'eager', i.decode()))"
        seen.page.evaluate(f"Promise.all({loaded})")  # refused where a picture cannot be drawn
        widths = seen.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1], path  # wide tables scroll in their box
    assert not seen.errors and not seen.failed and not seen.strangers()
    assert {urlsplit(url).scheme for url in seen.requests} <= {"file", "data"}
    claims = pd.read_csv(RESULTS / "claims.csv", dtype=str, keep_default_na=False)
    seen.page.goto((site / report.LEDGER).as_uri())
    shown = seen.page.locator("#claims tbody tr:visible")
    assert shown.count() == len(claims)
    seen.page.select_option("select[name=verdict]", "not yet measured")
    seen.page.select_option("select[name=seed]", "000")
    expected = claims[(claims["verdict"] == "not yet measured") & (claims["seed"] == "000")]
    assert shown.count() == len(expected) > 5
    seen.page.fill("input[name=words]", "batch")
    some = expected[expected.apply(lambda row: "batch" in " ".join(row).lower(), axis=1)]
    assert 0 < len(some) < len(expected)
    assert shown.locator("td:first-child").all_inner_texts() == list(some["id"])
    assert seen.page.locator("output").inner_text() == f"{len(some)} of {len(claims)} claims"
