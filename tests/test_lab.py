"""`make lab` in a real browser: its contents first, a token, nothing that leaves the machine, notebooks run.

The screenshots of the long test go to the folder named in SAISTUDY_SCREENSHOTS, to be looked at.
"""

import json
import os
import re
import time
from pathlib import Path

import nbformat
import pandas as pd
import psutil
import pytest
import yaml
from browser import Watched, browser, ended, lab, outputs, settled  # noqa: F401 (a fixture)
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from saistudy.paths import NOTEBOOKS, ROOT

INDEX = (NOTEBOOKS / "index.md").read_text(encoding="utf-8")
ALARMS = "alarm, of images with a box", "of those without"  # columns of explore
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def question(name: str) -> str:
    """The quoted question under a notebook's title."""
    first = "".join(json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"][0]["source"])
    return " ".join(line.removeprefix("> ") for line in first.split("\n")[1:] if line)


def test_the_contents_list_every_notebook_with_its_own_question():
    listed = re.findall(r"^\| \[(.+)\]\(\1\.ipynb\) \| (.+) \|$", INDEX, re.M)
    assert dict(listed) == {name: question(name) for name in NAMES} and len(listed) == len(NAMES)


def test_links_of_the_contents_lead_to_committed_files():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", INDEX)]
    assert len(links) > len(NAMES) and all((NOTEBOOKS / link).is_file() for link in links)


def test_lab_shows_its_contents_asks_for_a_token_and_sends_nothing_away(browser, tmp_path):  # noqa: F811
    with lab(tmp_path) as server:
        cells = [new_markdown_cell("# Tiny"), new_code_cell("print(6 * 7)\nimport os\nprint(os.getcwd())")]
        cells.append(new_code_cell("import saistudy.paths\nprint(saistudy.paths.ROOT)"))
        python3 = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}  # else Lab asks for one
        nbformat.write(
            new_notebook(cells=cells, metadata=python3), server.project / "notebooks" / "tiny.ipynb"
        )
        assert server.get("api/contents", token=False)[0] == 403 and server.get("api/contents")[0] == 200
        assert len(server.token) >= 32
        listens = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert {c.laddr.ip for c in listens} == {"127.0.0.1"}
        stranger = Watched(browser)
        stranger.page.goto(f"{server.url}lab")  # without the token
        assert stranger.page.url.startswith(f"{server.url}login")
        seen = Watched(browser)
        seen.page.goto(f"{server.url}?token={server.token}")
        first = seen.page.locator(".jp-MarkdownViewer h1")
        first.wait_for()
        assert first.inner_text() == INDEX.splitlines()[0].removeprefix("# ")
        assert not seen.page.locator(".jp-toast-message, .Toastify__toast").count()  # no news, no updates
        seen.page.locator(".jp-MarkdownViewer").get_by_role("link", name="stage1", exact=True).click()
        seen.page.locator(".jp-NotebookPanel h1", has_text="Stage 1").wait_for()
        seen.open(server, "notebooks/tiny.ipynb")
        seen.page.locator(".jp-NotebookPanel h1", has_text="Tiny").wait_for()
        seen.menu("Run", "Run All Cells")
        output = seen.page.locator(".jp-NotebookPanel:visible .jp-OutputArea-output")
        output.nth(1).wait_for()
        told = f"42\n{server.project / 'notebooks'}", str(server.project)
        assert tuple(text.strip() for text in output.all_inner_texts()) == told
        assert not seen.strangers() and not server.strangers() and not seen.errors
        assert len(seen.requests) > 20 and server.witnessed()


def whole(book) -> None:
    """Every code cell was executed, in order, and none raised."""
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for output in outputs(book) if output.output_type == "error"]


def opened(server, seen: Watched, name: str) -> None:
    seen.open(server, f"notebooks/{name}.ipynb")
    title = (NOTEBOOKS / f"{name}.ipynb").read_text()
    heading = re.search(r'"# ([^"\\]+)', title)[1]
    seen.page.locator(".jp-NotebookPanel h1", has_text=heading).first.wait_for()


def interrupted(server, seen: Watched, pictures: Path) -> None:
    """Run all of stage1, and interrupt its training by the menu once two epochs are shown."""
    seen.menu("Run", "Run All Cells")
    table = seen.page.locator(".jp-RenderedHTMLCommon table", has_text="val AP50").first
    table.locator("tbody tr").nth(1).wait_for(state="attached", timeout=300_000)
    seen.page.get_by_text(re.compile("epoch . of 8: (batch|valid|the)")).wait_for(state="attached")
    seen.picture(pictures / "stage1-live.png", table)
    assert table.locator("xpath=../..").locator("img").count() == 1  # the curves beside it
    seen.menu("Kernel", "Interrupt Kernel")
    settled(server, 60)
    seen.picture(pictures / "stage1-interrupted.png", seen.page.get_by_text("training interrupted"))


@pytest.mark.full
def test_the_study_is_run_by_menu_in_a_browser_and_nothing_leaves_the_machine(browser, tmp_path):  # noqa: F811
    """setup-shm, stage1 with an interrupt, ablation, explore with its slider: minutes."""
    pictures = Path(os.environ.get("SAISTUDY_SCREENSHOTS", tmp_path / "pictures"))
    with lab(tmp_path) as server:
        seen = Watched(browser)
        opened(server, seen, "setup-shm")
        seen.menu("Run", "Run All Cells")
        whole(ended(server, seen, "setup-shm", 300))
        seen.picture(pictures / "setup-shm.png")
        stop_kernels(server)
        opened(server, seen, "stage1")
        interrupted(server, seen, pictures)
        book = ended(server, seen, "stage1", 60)
        (error,) = [output for output in outputs(book) if output.output_type == "error"]
        told = re.fullmatch(
            r"training interrupted in epoch (\d+): all up to epoch (\d+) is kept, .*", error.evalue
        )
        kept = int(told[2])
        assert error.traceback == [error.evalue] and int(told[1]) == kept + 1 >= 3
        seen.menu("Kernel", "Restart Kernel and Run All Cells…")
        seen.page.get_by_role("button", name="Confirm Kernel Restart").click()
        time.sleep(5)
        book = ended(server, seen, "stage1", 600)
        whole(book)
        text = "".join(output.text for output in outputs(book) if output.output_type == "stream")
        assert f"resumed with epoch {kept + 1}, exactly" in text
        seen.picture(pictures / "stage1.png")
        record, known = (
            json.loads((server.project / place / "demo/896-s0/record.json").read_text())
            for place in ("results/lab", "results")
        )
        ended_so = [row["ended"] for row in record["attempts"][""]]
        assert ended_so == [f"interrupted in epoch {kept + 1}", "finished"]
        # what the interrupted run found is what the committed one did, as far as two machines agree
        tolerance = yaml.safe_load((ROOT / "params/demo/study.yaml").read_text())["tolerance"]["ap50"]
        assert [m["ap50"] for m in record["metrics"]] == pytest.approx(
            [m["ap50"] for m in known["metrics"]], abs=tolerance
        )
        stop_kernels(server)
        opened(server, seen, "ablation")
        seen.menu("Run", "Run All Cells")
        whole(ended(server, seen, "ablation", 300))
        seen.picture(pictures / "ablation.png", seen.page.locator("h2", has_text="Size and shape"))
        stop_kernels(server)
        opened(server, seen, "explore")
        seen.menu("Run", "Run All Cells")
        whole(ended(server, seen, "explore", 300))
        slid(server, seen, pictures)
        assert not seen.strangers() and not server.strangers() and not seen.errors
        # the study's own results were not touched
        assert not list((server.project / "results/demo").rglob("*.failed.ipynb"))


def slid(server, seen: Watched, pictures: Path) -> None:
    """Move the threshold's slider: table and picture are replaced, and say what a plain count says."""
    panel = seen.page.locator(".widget-vbox", has=seen.page.locator(".noUi-handle"), has_text="on val").first
    cell = seen.page.locator(".jp-CodeCell", has=panel)
    picture, handle = cell.locator("img"), panel.locator(".noUi-handle").first
    seen.picture(pictures / "explore-before.png", handle)
    first = shown_figures(panel), picture.get_attribute("src")
    box, width = handle.bounding_box(), panel.locator(".noUi-base").bounding_box()["width"]
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    seen.page.mouse.move(x, y)
    seen.page.mouse.down()
    seen.page.mouse.move(x + 0.15 * width, y, steps=5)
    seen.page.mouse.up()
    for _ in range(100):
        if shown_figures(panel) != first[0] and picture.get_attribute("src") != first[1]:
            break
        time.sleep(0.1)
    second = shown_figures(panel)
    seen.picture(pictures / "explore-after.png", handle)
    assert picture.count() == 1 == cell.locator("table").count() and picture.get_attribute("src") != first[1]
    cut = float(second["threshold"])
    assert cut == float(panel.locator(".widget-readout").inner_text()) > float(first[0]["threshold"]) + 0.05
    model = seen.page.locator(".widget-dropdown", has_text="model").first.locator("select")
    for threshold, figures in ((float(first[0]["threshold"]), first[0]), (cut, second)):
        counted = alarming(server.project / "results/demo/896-s0", model.input_value(), threshold)
        told = [figures[name] for name in ALARMS]
        assert told == [f"{share:.3f}" for share in counted]
    assert second[ALARMS[0]] < first[0][ALARMS[0]]


def shown_figures(panel) -> dict[str, str]:
    """The row of the slider by its columns."""
    table = panel.locator("table")
    names = table.locator("thead th").all_inner_texts()[1:]
    return dict(zip(names, table.locator("tbody tr").first.locator("td").all_inner_texts(), strict=True))


def alarming(run: Path, model: str, cut: float) -> list[float]:
    """Shares of test images with and without a box that have such a detection, from the saved files."""
    images, truth, found = (
        pd.read_parquet(run / f"{name}.parquet") for name in ("images", "truth", "predictions")
    )
    tested = images[images["split"] == "test"]["image"]
    alarms = set(found[(found["model"] == model) & (found["score"] >= cut)]["image"])
    boxed = tested.isin(truth["image"])
    return [tested[kind].isin(alarms).mean() for kind in (boxed, ~boxed)]


def stop_kernels(server) -> None:
    """End the kernels, so that the next notebook's is the only one."""
    for kernel in server.get("api/kernels")[1]:
        server.get(f"api/kernels/{kernel['id']}", method="DELETE")
