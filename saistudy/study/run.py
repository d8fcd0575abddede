"""Executes a notebook through Papermill, and says truthfully how that ended."""

import logging
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from saistudy import params
from saistudy.paths import ROOT, Refusal, work, write_text
from saistudy.study import locks
from saistudy.study.kernel import Console, Signals, environ
from saistudy.study.transcript import normalise
from saistudy.training import stopping

LOCK = "lock"  # in a run's work folder: held by the process that executes it


class Failure(RuntimeError):
    """The notebook did not reach its end; `status` is the exit status that says why.

    1 a cell raised, 75 (EX_TEMPFAIL of sysexits.h) stopped between two epochs or not begun, as was asked,
    138 the kernel died (Papermill's own number), 128 + n stopped by signal n.
    """

    ASKED = 75

    def __init__(self, sentence: str, status: int):
        super().__init__(sentence)
        self.status = status


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise Refusal(
            f"{folder} cannot be written ({error.strerror}): give it write permission and space,"
            " or name another root in SAISTUDY_RESULTS or SAISTUDY_WORK."
        ) from None


def _first_line(code: str) -> str:
    lines = [line.strip() for line in code.splitlines()]
    return next((line for line in lines if line and not line.startswith("#")), "")


def _cell(path: Path) -> str:
    """Names the last cell that was started, by its execution count and its first line."""
    with suppress(Exception):  # the file of a killed run may be cut short; the sentence need not be
        cells = nbformat.read(path, as_version=4).cells
        started = [c for c in cells if c.metadata.get("papermill", {}).get("start_time")]
        cell = [c for c in started if c.cell_type == "code"][-1]
        return f"cell [{cell.execution_count or '*'}] `{_first_line(cell.source)}`"
    return "the kernel's start"


def _failure(name: str, part: Path, error: BaseException | None, seen: int | None) -> Failure | None:
    if seen:
        stopped = signal.Signals(seen).name
        return Failure(f"{name}: stopped by {stopped} in {_cell(part)}", 128 + seen)
    if isinstance(error, PapermillExecutionError) and error.ename == stopping.Stopped.__name__:
        return Failure(f"{name}: stopped as was asked: {error.evalue}", Failure.ASKED)
    if isinstance(error, PapermillExecutionError):
        last = (str(error.evalue).strip().splitlines() or [""])[-1]
        return Failure(f"{name}: {_cell(part)} raised {error.ename}: {last}", 1)
    if isinstance(error, DeadKernelError):
        return Failure(f"{name}: the kernel died in {_cell(part)}, killed or out of memory", 138)
    if error:
        return Failure(f"{name}: {type(error).__name__} in {_cell(part)}: {error}", 1)
    if line := _unreached(part):
        return Failure(f"{name}: ended before `{line}` in {_cell(part)}, by sys.exit()?", 1)
    return None


def _keep(part: Path, name: str, target: Path, failure: Failure) -> None:
    """The notebook of a run that did not reach its end, with the sentence that says how it ended."""
    if not part.exists():  # the kernel never started
        return
    try:
        notebook = normalise(nbformat.read(part, as_version=4), name)
        notebook.metadata["failure"] = {"sentence": str(failure), "status": failure.status}
        text = nbformat.writes(notebook)
    except Exception:  # cut short while it was saved: better as it stands than not at all
        text = part.read_text(encoding="utf-8")
    write_text(target, text)
    part.unlink()


def _unreached(part: Path) -> str | None:
    """The first line of a code cell that was never executed; sys.exit() ends a notebook early."""
    cells = nbformat.read(part, as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code" and cell.source.strip()]
    return next((_first_line(c.source) for c in code if c.execution_count is None), None)


def _papermill(source: Path, part: Path, values: dict, name: str, signals: Signals) -> None:
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # the end is told once, by Failure
    with environ(), signals.passed_on():
        papermill.execute_notebook(
            source,
            part,
            values,
            kernel_name="python3",
            language="python",
            cwd=ROOT,
            progress_bar=sys.stderr.isatty(),
            stdout_file=Console(name),
            autosave_cell_every=30,
            kernel_manager_class=signals.manager(),
            coalesce_streams=True,
            record_timing=False,
        )


def execute(notebook: str | Path, values: dict, output: Path) -> None:
    """Runs a notebook (a name in `notebooks/` or a path) with `values` and writes it to `output`.

    `values` are laid over the notebook's defaults. It runs in the repository root and under
    `work/<profile>/<run>/`; only a run that reached its end becomes `output`, normalised and
    whole. Any other end leaves `<name>.failed.ipynb` beside it and a good `output` as it was.

    Raises:
        Refusal: wrong parameters, a folder that cannot be written, or another process executes that run,
            before a kernel starts.
        Failure: a cell raised, the kernel died, a signal came, a stop was asked for, or cells were never
            reached.
    """
    source, output = params.source(notebook), Path(output).absolute()
    values = params.read(source, [], values)
    name = output.parent.name if output.stem == "run" else output.stem
    part = work(values["profile"]).absolute() / name / f"{source.stem}.running.ipynb"
    for folder in (output.parent, part.parent):
        _require_writable(folder)
    if stopping.asked():
        raise Failure(f"{name}: not begun, a stop was asked for", Failure.ASKED)
    with locks.alone(part.with_name(LOCK), f"run {name}"):
        _execute(source, values, name, part, output)


def _execute(source: Path, values: dict, name: str, part: Path, output: Path) -> None:
    """Fills `part`, and moves it to `output` or beside it."""
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    part.unlink(missing_ok=True)
    signals, error, started = Signals(), None, time.monotonic()
    try:
        _papermill(source, part, values, name, signals)
    except (Exception, KeyboardInterrupt) as caught:
        error = caught
    if failure := _failure(source.stem, part, error, signals.seen):
        _keep(part, source.stem, failed, failure)
        raise Failure(f"{failure}; see {failed}", failure.status) from error
    text = nbformat.writes(normalise(nbformat.read(part, as_version=4), source.stem))
    write_text(output, text + "\n")
    for done in (failed, part):
        done.unlink(missing_ok=True)
    print(f"[{name}] done in {time.monotonic() - started:.0f} s", flush=True)
