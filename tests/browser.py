"""JupyterLab as a person uses it: `make lab` in a copy of the project, watched by a real browser.

The copy is what git knows or would add, for JupyterLab saves outputs into notebooks. What server and kernels
keep for their user lies in a home of its own; every address that their Python connects to, or asks a name of,
is written down.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest

from saistudy.paths import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HERE = ("127.0.0.1", "localhost", "::1")
WITNESS = """
import json, os, sys
def _told(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        address = args[1] if event == "socket.connect" else args
        with open(os.environ["WITNESS"], "a") as log:
            log.write(json.dumps([event, str(address[0] if isinstance(address, tuple) else address)]) + "\\n")
sys.addaudithook(_told)
"""


def copied(folder: Path) -> Path:
    """The project as it stands, without what git ignores, and the installed environment linked into it."""
    listed = ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


class Lab:
    """A JupyterLab that `make lab` has started: its address, its token, the folder that it serves."""

    def __init__(self, project: Path, home: Path):
        self.project, self.home = project, home
        told = json.loads(next(self._known()).read_text())
        self.url, self.token, self.pid = told["url"], told["token"], told["pid"]

    def _known(self) -> Iterator[Path]:
        return (self.home / "runtime").glob("jpserver-*.json")

    def get(self, path: str, token: bool = True, method: str = "GET") -> tuple[int, object]:
        """Status and JSON of the server's answer."""
        asked = urllib.request.Request(f"{self.url}{path}", method=method)
        if token:
            asked.add_header("Authorization", f"token {self.token}")
        try:
            with urllib.request.urlopen(asked, timeout=20) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            return error.code, None

    def witnessed(self) -> list[list[str]]:
        """Each address that the server's or a kernel's Python was told to reach, and by what."""
        log = self.home / "witness"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []

    def strangers(self) -> list[list[str]]:
        """Those among them that are neither of this machine nor a file."""
        return [one for one in self.witnessed() if one[1] not in HERE and not one[1].startswith("/")]


@contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """`make lab` in a copy of the project below `folder`, ended at the end with its kernels."""
    project, home = copied(folder / "project"), folder / "home"
    (home / "runtime").mkdir(parents=True)
    (project / "sitecustomize.py").write_text(WITNESS)  # Python imports it at its start: make sets PYTHONPATH
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SAISTUDY_", "JUPYTER", "PYTEST_"))}
    env |= {"HOME": str(home), "WITNESS": str(home / "witness"), "BROWSER": "true"}
    env |= {"JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTER_CONFIG_DIR": str(home / "config")}
    env |= {"JUPYTER_DATA_DIR": str(home / "data"), "IPYTHONDIR": str(home / "ipython")}
    memory = tempfile.mkdtemp(prefix="saistudy-lab-", dir="/dev/shm" if Path("/dev/shm").is_dir() else home)
    env |= {"SAISTUDY_SHM": memory}
    words = ["make", "-o", ".venv/.ready", "lab"]  # the environment is linked: it is not to be made again
    with open(home / "log", "w") as log:
        make = subprocess.Popen(words, cwd=project, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        _until(lambda: any((home / "runtime").glob("jpserver-*.json")), make, home / "log")
        yield Lab(project, home)
    finally:
        _end(make)
        shutil.rmtree(memory)


def _until(done, process: subprocess.Popen, log: Path, wait_s: float = 60) -> None:
    started = time.monotonic()
    while not done():
        if process.poll() is not None or time.monotonic() - started > wait_s:
            raise AssertionError(f"make lab did not come up: {log.read_text()}")
        time.sleep(0.1)
    time.sleep(0.3)  # the file is being written


def _end(make: subprocess.Popen) -> None:
    """Ask the server to end, which ends its kernels."""
    import psutil

    family = psutil.Process(make.pid).children(recursive=True) if make.poll() is None else []
    for one in family:
        if "jupyter" in " ".join(one.cmdline()) and "ipykernel" not in " ".join(one.cmdline()):
            one.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=15)
    for one in alive:
        one.kill()
    make.wait(15)


@pytest.fixture
def browser():
    """A Chromium driven by Playwright; skipped with the reason where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as p:
        started = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


class Watched:
    """A page whose requests, errors and console are written down."""

    def __init__(self, browser, size: tuple[int, int] = (1360, 900)):
        self.page = browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)))
        self.page.set_default_timeout(90_000)  # a machine of two busy cores
        self.requests, self.errors, self.failed = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("requestfailed", lambda request: self.failed.append(request.url))

    def strangers(self) -> list[str]:
        """Requests that did not go to this machine or to the page itself."""
        own = ("data", "blob", "file", "about")
        split = [(url, urlsplit(url)) for url in self.requests]
        return [url for url, parts in split if parts.scheme not in own and parts.hostname not in HERE]

    def menu(self, *names: str) -> None:
        """Choose an entry of JupyterLab's menu bar, as ("Run", "Run All Cells")."""
        bar, *entries = names
        self.page.locator(".lm-MenuBar-item", has_text=bar).first.click()
        for entry in entries:
            label = self.page.locator(".lm-Menu-itemLabel").get_by_text(entry, exact=True)
            label.first.click()

    def open(self, lab: Lab, path: str) -> None:
        """Open a notebook in JupyterLab, alone: tabs of before would start their kernels anew.

        Its kernel is waited for: cells that are run by menu before it is connected are not run at all (4.6).
        """
        self.page.goto(f"{lab.url}lab/tree/{path}?reset&token={lab.token}")
        self.page.get_by_text("| Idle").first.wait_for()

    def picture(self, path: Path, what=None) -> None:
        """A screenshot, of where an element stands in the middle if one is given."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(3 if what else 0):  # JupyterLab lays cells out anew when they come into sight
            what.first.evaluate("element => element.scrollIntoView({block: 'center'})")
            self.page.wait_for_timeout(400)
        self.page.screenshot(path=path)


def ended(lab: Lab, seen: Watched, name: str, wait_s: float):
    """The open notebook, saved by the menu, once all of its cells were executed or one has raised."""
    started = time.monotonic()
    while time.monotonic() - started < wait_s:
        settled(lab, wait_s)
        book = saved(lab, seen, name)
        code = [cell for cell in book.cells if cell.cell_type == "code"]
        failed = any(output.output_type == "error" for output in outputs(book))
        if failed or all(cell.execution_count for cell in code):
            return book
    raise AssertionError(f"{name} was not executed to its end in {wait_s} s")


def saved(lab: Lab, seen: Watched, name: str):
    """The notebook that is open, saved by the menu and read back."""
    path = lab.project / "notebooks" / f"{name}.ipynb"
    before = path.stat().st_mtime_ns
    seen.menu("File", "Save Notebook")
    for _ in range(100):
        if path.stat().st_mtime_ns != before:
            break
        time.sleep(0.1)
    time.sleep(0.5)
    return nbformat.read(path, as_version=4)


def outputs(book) -> list[dict]:
    """All outputs of a notebook in order."""
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def settled(lab: Lab, wait_s: float, looks_n: int = 3) -> None:
    """Wait until the only kernel has been idle for some looks in a row."""
    started, idle = time.monotonic(), 0
    while idle < looks_n:
        assert time.monotonic() - started < wait_s, lab.get("api/kernels")
        kernels = lab.get("api/kernels")[1]
        idle = idle + 1 if kernels and all(k["execution_state"] == "idle" for k in kernels) else 0
        time.sleep(0.5)
