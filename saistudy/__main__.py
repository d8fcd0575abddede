"""The command line: `python -m saistudy <command> --help`."""

import argparse
import importlib
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import yaml

from saistudy.paths import Refusal

RUN = """\
examples:
  python -m saistudy run data --output results/demo/data/run.ipynb
  python -m saistudy run stage1 -f params/demo/stage1.yaml params/demo/arms/1440.yaml \\
      -p seed 3 -p train '{epochs: 2, lr0: 1.0e-3}' --output results/demo/1440-s3/run.ipynb

Values are read as YAML: a float needs a dot (1.0e-3). A later file replaces a parameter as a whole,
-p goes over all files. Exit status: 0 done, 1 a cell raised, 2 refused before the start, 75 stopped
between two epochs, as was asked, 130 (SIGINT), 143 (SIGTERM) and 138 (SIGUSR1) stopped by a signal
within seconds, the epoch in progress dropped, 138 the kernel died. The same command goes on.
"""

STUDY = """\
make study calls this; `command` is Snakemake with its options. One study of a profile at a time.
With --detach it goes on when the terminal is closed (where systemd ends all that a user began at his
logout, KillUserProcesses, `loginctl enable-linger` allows it), and its lines go to a log:

  python -m saistudy status            # runs done, at work, failed; is it alive?
  python -m saistudy logs --follow     # its lines as they come; Ctrl-C ends only the view
  python -m saistudy stop              # ends with the epoch in progress; the same make study goes on
"""

AUDIT = """\
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
in it: take one that you trust. Exit status 1: some files could not be read; each is named and skipped.
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


def _value(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise Refusal(f"-p value '{text}' is not YAML: quote it, or write it to a file.") from None


def _run(given: argparse.Namespace) -> None:
    from saistudy import params

    overrides = {name: _value(text) for name, text in given.parameter}
    values = params.read(given.notebook, given.file, overrides)
    if given.notebook == "stage1":
        from saistudy.study import gate

        gate.refuse_no_go(values["profile"])
    from saistudy.study import prologue, run, slots  # after the check: it takes a second

    with slots.taken() if given.gpu else nullcontext(), prologue.staged(given.notebook, values):
        run.execute(given.notebook, values, given.output)
    if given.stamp:
        from saistudy.study import forecast

        forecast.write_stamp(given.stamp)


def _plan(given: argparse.Namespace) -> None:
    from saistudy.study import forecast, gate, outlook, planned

    runs = forecast.runs(given.profile, given.full, given.speed)
    done = [name for name, run in runs.items() if forecast.done(given.profile, run)]
    print(f"profile {given.profile}: {len(runs)} runs, {len(done)} of them done")
    to_come = outlook.rows(given.profile, runs, given.full)
    print("\n".join(outlook.sentences(given.profile, to_come, given.price_per_h)))
    print(forecast.sentences(given.profile, given.full, given.price_per_h))
    print("\n".join(planned.sentences(given.profile)))
    try:
        print(gate.refuse_no_go(given.profile), end="\n" if given.profile in gate.GUARDED else "")
    except Refusal as refusal:  # the gate itself may be among the runs: each training asks again
        print(refusal)
    if given.ask and len(done) < len(runs):
        _agree()


def _jobs(given: argparse.Namespace) -> None:
    from saistudy.study import slots

    print(slots.jobs_n(given.profile))


def _agree() -> None:
    """Ask before hours and money are spent; YES=1 answers where nobody sits."""
    if os.environ.get("YES") == "1":
        return
    if not sys.stdin.isatty():
        raise Refusal("nobody is there to say yes to this plan: run again with YES=1 to spend that.")
    if input("go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refusal("the plan was not agreed to: nothing was run.")


def _table(given: argparse.Namespace) -> None:
    from saistudy.study import front, planned, tables

    for profile in given.profile:
        print("\n".join(planned.sentences(profile)))
        tables.write(profile, tables.of(profile))
    front.readme()


def _compare(given: argparse.Namespace) -> None:
    from saistudy.study import agreement, front

    front.readme()
    print(agreement.sentence(given.profile))


def _audit(given: argparse.Namespace) -> int:
    from saistudy import hardware

    hardware.pin_threads()
    hardware.quiet()
    from saistudy.study.audit import report

    seen = report.everything(given.profile or report.profiles())
    print(report.sentences(seen))
    return int(any(one.found for one in seen))


def _report(given: argparse.Namespace) -> None:
    from saistudy.study import report

    print(report.sentence(report.write(given.profile)))


def _predict(given: argparse.Namespace) -> int:
    from saistudy import hardware

    hardware.pin_threads()
    hardware.quiet()
    from saistudy.study import drawings

    result = drawings.write(given.model, given.paths, given.output, given.conf)
    print(drawings.sentences(result, given.output))
    return int(bool(result.broken))


def _seal(given: argparse.Namespace) -> None:
    from saistudy.paths import results
    from saistudy.study.audit import manifest

    manifest.write(results(given.profile[0]).parent, given.profile)


def _expect(given: argparse.Namespace) -> None:
    from saistudy.study import agreement

    for profile in given.profile:
        agreement.write(profile)


def _stage(given: argparse.Namespace) -> int:
    from saistudy.data import sources, store

    if (given.source is None) != (given.target is None) and given.action in ("plan", "run"):
        raise Refusal(
            "--source and --target belong together: give both, or neither for the profile's own trees."
        )
    profile = given.profile or "demo"
    own = given.target is None or given.profile is not None
    beside = sources.beside(profile) if own else (0, 0)
    found = sources.to_stage(profile, given.action, given.source, given.target)
    if given.action == "release" and given.target is None:
        for place in sources.stores(profile):
            store.release(place)
    return max([_staged(given.action, *places, beside) for places in found.items()])


def _staged(action: str, source: Path, target: Path, beside: tuple[int, int]) -> int:
    """Exit status of an action on one target; 1 says that it does not fit, or is not staged."""
    from saistudy.data import shm

    if action == "plan":
        planned = shm.plan(source, target, *beside)
        print(planned["sentence"])
        return int(not planned["fits"])
    if action == "release":
        shm.release(target)
        print(f"{target}: released")
        return 0
    if action == "run":
        shm.stage(source, target, *beside, say=print)
    whole = shm.staged(target)
    print(f"{target}: {'staged' if whole else 'not staged, or not whole'}")
    return int(not whole)


def _bench(given: argparse.Namespace) -> None:
    import json

    measure, sentences = _benchmark(given.what)
    measured = measure(given.minutes) if given.what == "step" else measure()
    print(json.dumps(measured, indent=1, allow_nan=False) if given.json else sentences(measured))


def _benchmark(what: str) -> tuple:
    """What measures, and what says it in words; benches of files need no torch."""
    if what in ("training", "loader", "step"):
        from saistudy import hardware

        hardware.pin_threads()
        hardware.quiet()
        module = importlib.import_module(f"saistudy.study.bench_{what}")
        return module.measure, module.sentences
    from saistudy.study import bench_index, bench_staging

    return {
        "staging": (bench_staging.measure, bench_staging.sentences),
        "index": (bench_index.measure_index, bench_index.sentences),
        "tree": (bench_index.measure_tree, bench_index.sentences),
    }[what]


def _study(given: argparse.Namespace) -> int:
    from saistudy.study import session
    from saistudy.study.saved import shown

    if not given.detach:
        return session.attend(given.profile, given.command, given.log)
    log, more = session.detach(given.profile, given.command), f"--profile {given.profile}"
    print(f"study {given.profile} goes on without this terminal; log {shown(log)}")
    for command in ("status", "logs --follow", "stop"):
        print(f"  python -m saistudy {command} {more}")
    return 0


def _status(given: argparse.Namespace) -> None:
    from saistudy.study import status

    print(status.sentences(given.profile))


def _logs(given: argparse.Namespace) -> None:
    from saistudy.study import logs

    with suppress(KeyboardInterrupt):  # Ctrl-C ends the view, and nothing else
        for line in logs.lines(given.profile, given.run, given.follow):
            print(line, flush=True)


def _stop(given: argparse.Namespace) -> None:
    from saistudy.study import begun, status

    begun.ask(given.profile, given.at_once)
    print("\n".join(status.stopping(given.profile)), flush=True)
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the view; what was asked stands
        begun.await_end(given.profile)
        print(status.study(given.profile))


def _bundle(given: argparse.Namespace) -> None:
    from saistudy.study import bundle
    from saistudy.study.saved import sha256, shown

    written = bundle.write(given.profile, given.run, given.output)
    print(f"{shown(written.absolute())}: {written.stat().st_size / 2**20:.1f} MiB, sha256 {sha256(written)}")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `act`, a function of what was given."""
    top = argparse.ArgumentParser(prog="python -m saistudy", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="command")
    raw = argparse.RawDescriptionHelpFormatter
    run = commands.add_parser("run", help="execute a notebook", epilog=RUN, formatter_class=raw)
    run.add_argument("notebook", help="name in notebooks/, or path of an .ipynb file")
    run.add_argument("-f", "--file", nargs="+", action="extend", default=[], type=Path, help="YAML files")
    run.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="one parameter",
    )
    run.add_argument("--output", type=Path, required=True, help="where the executed notebook goes")
    run.add_argument("--stamp", type=Path, help="file that says the run is done, written last")
    run.add_argument("--gpu", action="store_true", help="wait for a GPU that no other run has; see only that")
    run.set_defaults(act=_run)
    plan = commands.add_parser("plan", help="what would run, its hours, money and bytes")
    plan.add_argument("--profile", default="demo")
    plan.add_argument("--full", action="store_true", help="the whole preregistered grid")
    plan.add_argument("--speed", action="store_true", help="gate, throughput and large-batch as well")
    plan.add_argument("--price-per-h", type=float, help="US dollars for a GPU hour (default: study.yaml)")
    plan.add_argument("--ask", action="store_true", help="ask before going on (YES=1 answers)")
    plan.set_defaults(act=_plan)
    jobs = commands.add_parser("jobs", help="how many runs go at a time on this machine: one a GPU")
    jobs.add_argument("--profile", default="demo")
    jobs.set_defaults(act=_jobs)
    table = commands.add_parser("table", help="regenerate tables from records, and the README's")
    table.add_argument("profile", nargs="+", help="profiles")
    table.set_defaults(act=_table)
    compare = commands.add_parser("compare", help="the README, and fresh results against the committed ones")
    compare.add_argument("--profile", default="demo")
    compare.set_defaults(act=_compare)
    audit = commands.add_parser("audit", help="is what is committed what was computed?", epilog=AUDIT)
    audit.formatter_class = raw
    audit.add_argument("profile", nargs="*", help="profiles (default: all that have results)")
    audit.set_defaults(act=_audit)
    report = commands.add_parser("report", help="the study as a static site, in work/report")
    report.add_argument("profile", nargs="*", help="profiles (default: all that have results)")
    report.set_defaults(act=_report)
    seal = commands.add_parser("seal", help="write the hashes of a profile's results into SHA256SUMS")
    seal.add_argument("profile", nargs="+", help="profiles")
    seal.set_defaults(act=_seal)
    expect = commands.add_parser("expect", help="hold these results as what a rerun should give")
    expect.add_argument("profile", nargs="+", help="profiles")
    expect.set_defaults(act=_expect)
    predict = commands.add_parser("predict", help="boxes on one's own pictures or video", epilog=PREDICT)
    predict.formatter_class = raw
    predict.add_argument("model", type=Path, help="weights of a detector, a .pt file")
    predict.add_argument("paths", nargs="+", type=Path, help="pictures, videos, folders of them")
    predict.add_argument("--conf", type=float, help="score from which a box counts")
    predict.add_argument("--output", type=Path, default=Path("predicted"), help="default: predicted/")
    predict.set_defaults(act=_predict)
    stage = commands.add_parser("stage", help="images in memory", epilog=STAGE, formatter_class=raw)
    stage.add_argument("action", choices=["plan", "run", "status", "release"])
    stage.add_argument("--profile", help="whose trees (default demo), or whose loader fits beside a --source")
    stage.add_argument("--source", type=Path, help="any folder instead of the profile's trees")
    stage.add_argument("--target", type=Path, help="the folder that it is staged to")
    stage.set_defaults(act=_stage)
    bench = commands.add_parser("bench", help="this machine's rates, A B A B in one run, minutes")
    bench.add_argument("what", choices=["loader", "step", "staging", "index", "tree", "training"])
    bench.add_argument("--minutes", type=float, default=25.0, help="of step, which keeps every cell")
    bench.add_argument("--json", action="store_true", help="every pass, as JSON")
    bench.set_defaults(act=_bench)
    _add_control(commands, raw)
    return top


def _add_control(commands, raw) -> None:
    """The commands around a study that runs, and what it leaves."""
    study = commands.add_parser("study", help="execute a study's runs", epilog=STUDY, formatter_class=raw)
    study.add_argument("--profile", default="demo")
    study.add_argument("--detach", action="store_true", help="in a session of its own, with a log")
    study.add_argument("--log", type=Path, help=argparse.SUPPRESS)  # where a detached one's lines go
    study.add_argument("command", nargs="+", help="what executes the runs, after --")
    study.set_defaults(act=_study)
    status = commands.add_parser("status", help="which runs are done, at work, failed; does a study run?")
    status.add_argument("--profile", default="demo")
    status.set_defaults(act=_status)
    logs = commands.add_parser("logs", help="the lines of a detached study")
    logs.add_argument("run", nargs="?", help="only what this run said")
    logs.add_argument("--profile", default="demo")
    logs.add_argument("--follow", action="store_true", help="as they come, until the study ends")
    logs.set_defaults(act=_logs)
    stop = commands.add_parser("stop", help="end a study with the epoch in progress; make study goes on")
    stop.add_argument("--profile", default="demo")
    stop.add_argument("--at-once", action="store_true", help="drop the epoch in progress")
    stop.set_defaults(act=_stop)
    bundle = commands.add_parser("bundle", help="a run's notebook, record, predictions and weights in a file")
    bundle.add_argument("run", help="name of a run, as in results/<profile>/")
    bundle.add_argument("--profile", default="demo")
    bundle.add_argument("--output", type=Path, help="default: work/<profile>/bundles/<run>.tar.gz")
    bundle.set_defaults(act=_bundle)


def main(words: list[str] | None = None) -> int:
    """Exit status of a command: 0, or 2 with one sentence on stderr, or what a failed run says."""
    given = parser().parse_args(words)
    try:
        return given.act(given) or 0
    except Refusal as refusal:
        print(f"saistudy: {refusal}", file=sys.stderr)
        return 2
    except RuntimeError as failure:
        if not hasattr(failure, "status"):
            raise
        print(f"saistudy: {failure}", file=sys.stderr)
        return failure.status


if __name__ == "__main__":
    sys.exit(main())
