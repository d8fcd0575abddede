"""The words of the command line: every command, what it takes, and examples."""

import argparse
from pathlib import Path

DESCRIPTION = "The command line: `python -m saistudy <command> --help`."

RUN = """\
examples:
  python -m saistudy run data --output results/demo/data/run.ipynb
  python -m saistudy run stage1 -f params/demo/stage1.yaml params/demo/arms/1440.yaml \\
      -p seed 3 -p change '{imgsz: 160, epochs: 2}' --output results/demo/1440-s3/run.ipynb

Values are read as YAML: a float needs a dot (1.0e-3). A later file replaces a parameter as a whole, of
`train` and `change` every key with it, and -p goes over all files. Exit status: 0 done, 1 a cell raised,
2 refused before the start, 75 stopped between two epochs, as was asked, 130 (SIGINT), 143 (SIGTERM) and
138 (SIGUSR1) stopped by a signal within seconds, the epoch in progress dropped, 138 the kernel died. The
same command goes on.
"""

STUDY = """\
make study calls this; `command` is Snakemake with its options. One study of a profile at a time.
With --detach it goes on when the terminal is closed (where systemd ends all that a user began at his
logout, KillUserProcesses, `loginctl enable-linger` allows it), and its lines go to a log:

  python -m saistudy status            # runs done, at work, failed; is it alive?
  python -m saistudy logs --follow     # its lines as they come; Ctrl-C ends only the view
  python -m saistudy stop              # ends with the epoch in progress; the same make study goes on
  python -m saistudy study --profile h200 -- snakemake --profile profiles/slurm --config profile=h200
"""

AUDIT = """\
examples:
  python -m saistudy audit
  python -m saistudy audit mini

Nothing is trained: cells in order and without an error, source and parameters those of the record, metrics,
intervals and verdicts computed again from saved predictions, what notebooks show computed again by their own
cells, stage 1 to stage 2, tables, figures' frames, the ledger, the README, and every byte against SHA256SUMS.
Exit status 1: something is wrong; each finding is a line. Pictures are held by SHA256SUMS alone.
"""

PREDICT = """\
examples:
  python -m saistudy predict work/demo/896-s0/train/weights/best.pt my-pictures/ fire.mp4
  python -m saistudy predict yolov8n.pt street.jpg --conf 0.25 --output street

Boxes are those that the evaluation of a run would save, at the tensor that the model was trained at. Without
--conf the threshold is the one of the model.md beside it, or of its record. Loading a .pt file runs the code
in it: take one that you trust. Exit status 1: some files could not be read, not to their
end, or not drawn; each is named.
"""

STAGE = """\
examples:
  python -m saistudy stage plan --profile h200
  python -m saistudy stage run --source /data/my-yolo-set --target /dev/shm/my-yolo-set
  python -m saistudy stage release --target /dev/shm/my-yolo-set

plan: bytes, files, room, seconds, and whether it fits beside the loaders of params/<profile>/setup-shm.yaml;
run: copy what is not there yet; status: is it whole?; release: give the memory back.
Exit status 1: does not fit, or is not staged. A --source is reckoned without a loader unless given --profile.
"""

TABLE = """\
examples:
  python -m saistudy table demo mini       # table.csv, table.md and the README's
  python -m saistudy expect demo           # its AP50 figures become the band of expected.json
  python -m saistudy seal demo mini        # after both: the hashes of what stands in results/
"""

COMPARE = """\
example:
  python -m saistudy compare --profile demo     # how many AP50 figures lie in the band of expected.json
"""

PLAN = """\
examples:
  python -m saistudy plan
  python -m saistudy plan --profile h200 --full --price-per-h 3.5
  python -m saistudy jobs --profile h200     # as many as GPUs; without one jobs_n of study.yaml
"""

REPORT = """\
examples:
  python -m saistudy report            # work/report/index.html, of every profile that has results
  python -m saistudy report mini
"""

BENCH = """\
examples:
  python -m saistudy bench loader --json > loader.json
  python -m saistudy bench step --minutes 20     # on an H200: fills results/h200-bench/, a cell at a time
"""

WATCH = """\
examples:
  python -m saistudy status --profile h200
  python -m saistudy logs --follow
  python -m saistudy logs 896-s0
  python -m saistudy stop --at-once
"""

BUNDLE = """\
examples:
  python -m saistudy bundle 896-s0 --output 896-s0.tar.gz && tar xf 896-s0.tar.gz
  (cd demo-896-s0 && sha256sum -c SHA256SUMS)
"""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `act`, the name of what is done."""
    top = argparse.ArgumentParser(prog="python -m saistudy", description=DESCRIPTION)
    commands = top.add_subparsers(required=True, metavar="command")
    for group in (_runs, _plans, _studies, _takes, _checks, _machines):
        group(commands)
    return top


def _add(commands, name: str, told: str, epilog: str = "", profile: bool = False):
    """A command with its examples as they stand; `profile` gives it that option."""
    added = commands.add_parser(name, help=told, description=f"{told}.", epilog=epilog)
    added.formatter_class = argparse.RawDescriptionHelpFormatter
    added.set_defaults(act=name)
    if profile:
        added.add_argument("--profile", default="demo", help="demo (default), mini or h200")
    return added


def _runs(commands) -> None:
    run = _add(commands, "run", "execute a notebook", RUN)
    run.add_argument("notebook", help="name in notebooks/, or path of an .ipynb file")
    run.add_argument("-f", "--file", nargs="+", action="extend", default=[], type=Path, help="YAML files")
    pair = {"nargs": 2, "action": "append", "default": [], "metavar": ("KEY", "VALUE")}
    run.add_argument("-p", "--parameter", help="one parameter", **pair)
    run.add_argument("--output", type=Path, required=True, help="where the executed notebook goes")
    run.add_argument("--stamp", type=Path, help="file that says the run is done, written last")
    run.add_argument("--gpu", action="store_true", help="wait for a GPU that no other run has; see only that")


def _plans(commands) -> None:
    plan = _add(commands, "plan", "what would run and why, its hours, money and bytes", PLAN, profile=True)
    plan.add_argument("--full", action="store_true", help="the whole preregistered grid")
    plan.add_argument("--speed", action="store_true", help="gate, throughput and large-batch as well")
    plan.add_argument("--price-per-h", type=float, help="US dollars for a GPU hour (default: study.yaml)")
    plan.add_argument("--ask", action="store_true", help="ask before going on (YES=1 answers)")
    _add(commands, "jobs", "how many runs go at a time on this machine: one a GPU", PLAN, profile=True)


def _studies(commands) -> None:
    study = _add(commands, "study", "execute a study's runs", STUDY, profile=True)
    study.add_argument("--detach", action="store_true", help="in a session of its own, with a log")
    study.add_argument("--log", type=Path, help=argparse.SUPPRESS)  # where a detached one's lines go
    study.add_argument("command", nargs="+", help="what executes the runs, after --")
    _add(commands, "status", "which runs are done, at work, failed; does a study run?", WATCH, profile=True)
    logs = _add(commands, "logs", "the lines of a detached study", WATCH, profile=True)
    logs.add_argument("run", nargs="?", help="only what this run said")
    logs.add_argument("--follow", action="store_true", help="as they come, until the study ends")
    stop = _add(commands, "stop", "end a study with the epoch; make study goes on", WATCH, profile=True)
    stop.add_argument("--at-once", action="store_true", help="drop the epoch in progress")


def _takes(commands) -> None:
    told = "a run's notebook, record, predictions and weights in a file"
    bundle = _add(commands, "bundle", told, BUNDLE, profile=True)
    bundle.add_argument("run", help="name of a run, as in results/<profile>/")
    bundle.add_argument("--output", type=Path, help="default: work/<profile>/bundles/<run>.tar.gz")
    predict = _add(commands, "predict", "boxes on one's own pictures or video", PREDICT)
    predict.add_argument("model", type=Path, help="weights of a detector, a .pt file")
    predict.add_argument("paths", nargs="+", type=Path, help="pictures, videos, folders of them")
    predict.add_argument("--conf", type=float, help="score from which a box counts")
    predict.add_argument("--output", type=Path, default=Path("predicted"), help="default: predicted/")
    report = _add(commands, "report", "the study as a static site, in work/report", REPORT)
    report.add_argument("profile", nargs="*", help="profiles (default: all that have results)")


def _checks(commands) -> None:
    table = _add(commands, "table", "regenerate tables from records, and the README's", TABLE)
    table.add_argument("profile", nargs="+", help="profiles")
    told = "the README, and fresh results against the committed ones"
    _add(commands, "compare", told, COMPARE, profile=True)
    audit = _add(commands, "audit", "is what is committed what was computed?", AUDIT)
    audit.add_argument("profile", nargs="*", help="profiles (default: all that have results)")
    seal = _add(commands, "seal", "write the hashes of a profile's results into SHA256SUMS", TABLE)
    seal.add_argument("profile", nargs="+", help="profiles")
    expect = _add(commands, "expect", "hold these results as what a rerun should give", TABLE)
    expect.add_argument("profile", nargs="+", help="profiles")


def _machines(commands) -> None:
    stage = _add(commands, "stage", "images in memory", STAGE)
    stage.add_argument("action", choices=["plan", "run", "status", "release"])
    stage.add_argument("--profile", help="whose trees (default demo), or whose loader fits beside a --source")
    stage.add_argument("--source", type=Path, help="any folder instead of the profile's trees")
    stage.add_argument("--target", type=Path, help="the folder that it is staged to")
    bench = _add(commands, "bench", "this machine's rates, A B A B in one run, minutes", BENCH)
    bench.add_argument("what", choices=["loader", "step", "staging", "index", "tree", "training"])
    bench.add_argument("--minutes", type=float, default=25.0, help="of step, which keeps every cell")
    bench.add_argument("--json", action="store_true", help="every pass, as JSON")
