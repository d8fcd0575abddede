"""The command line: `python -m saistudy <command> --help`."""

import argparse
import importlib
import os
import sys
from pathlib import Path

import yaml

from saistudy.paths import Refusal

RUN = """\
examples:
  python -m saistudy run data --output results/demo/data/run.ipynb
  python -m saistudy run stage1 -f params/demo/stage1.yaml params/demo/arms/1440.yaml \\
      -p seed 3 -p train '{epochs: 2, lr0: 1.0e-3}' --output results/demo/1440-s3/run.ipynb

Values are read as YAML: a float needs a dot (1.0e-3). A later file replaces a parameter as a whole,
-p goes over all files. Exit status: 0 done, 1 a cell raised, 2 refused before the start, 130 and
143 stopped, 138 the kernel died.
"""

AUDIT = """\
Nothing is trained: cells in order and without an error, source and parameters those of the record, metrics,
intervals and verdicts computed again from saved predictions, what notebooks show computed again by their own
cells, stage 1 to stage 2, tables, figures' frames, the ledger, the README, and every byte against SHA256SUMS.
Exit status 1: something is wrong; each finding is a line. Pictures are held by SHA256SUMS alone.
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
    from saistudy.study import run  # after the check: it takes a second

    run.execute(given.notebook, values, given.output)
    if given.stamp:
        from saistudy.study import forecast

        forecast.write_stamp(given.stamp)


def _plan(given: argparse.Namespace) -> None:
    from saistudy.study import forecast, gate, planned

    runs = forecast.runs(given.profile, given.full, given.speed)
    done = [name for name, run in runs.items() if forecast.done(given.profile, run)]
    print(f"profile {given.profile}: {len(runs)} runs, {len(done)} of them done")
    print(forecast.sentences(given.profile, given.full))
    print("\n".join(planned.sentences(given.profile)))
    try:
        print(gate.refuse_no_go(given.profile), end="\n" if given.profile in gate.GUARDED else "")
    except Refusal as refusal:  # the gate itself may be among the runs: each training asks again
        print(refusal)
    if given.ask and len(done) < len(runs):
        _agree()


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
    run.set_defaults(act=_run)
    plan = commands.add_parser("plan", help="what would run, its hours, money and bytes")
    plan.add_argument("--profile", default="demo")
    plan.add_argument("--full", action="store_true", help="the whole preregistered grid")
    plan.add_argument("--speed", action="store_true", help="gate, throughput and large-batch as well")
    plan.add_argument("--ask", action="store_true", help="ask before going on (YES=1 answers)")
    plan.set_defaults(act=_plan)
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
    seal = commands.add_parser("seal", help="write the hashes of a profile's results into SHA256SUMS")
    seal.add_argument("profile", nargs="+", help="profiles")
    seal.set_defaults(act=_seal)
    expect = commands.add_parser("expect", help="hold these results as what a rerun should give")
    expect.add_argument("profile", nargs="+", help="profiles")
    expect.set_defaults(act=_expect)
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
    return top


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
