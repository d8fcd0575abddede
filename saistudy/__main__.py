"""What each command does; `python -m saistudy --help` lists them."""

import argparse
import importlib
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

import yaml

from saistudy.paths import Refusal, unusable
from saistudy.study import commands


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
        from saistudy.study import stamps

        stamps.write(given.stamp)


def _plan(given: argparse.Namespace) -> None:
    from saistudy.study import estimates, forecast, gate, outlook, planned, stamps

    try:
        runs = forecast.runs(given.profile, given.full, given.speed)
    except Refusal:  # what it would cost is worth knowing before 12 GB are downloaded
        print(estimates.sentences(given.profile, given.full, given.price_per_h))
        raise
    done = [name for name, run in runs.items() if stamps.done(given.profile, run)]
    print(f"profile {given.profile}: {len(runs)} runs, {len(done)} of them done")
    to_come = outlook.rows(given.profile, runs, given.full)
    print("\n".join(outlook.sentences(given.profile, to_come, given.price_per_h)))
    print(estimates.sentences(given.profile, given.full, given.price_per_h))
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
    return int(bool(result.broken or result.partial or result.undrawn))


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


ACTS = {
    act.__name__[1:]: act
    for act in (
        *(_run, _plan, _jobs, _study, _status, _logs, _stop, _bundle, _predict, _report),
        *(_table, _compare, _audit, _seal, _expect, _stage, _bench),
    )
}


def main(words: list[str] | None = None) -> int:
    """Exit status of a command: 0, or 2 with one sentence on stderr, or what a failed run says."""
    given = commands.parser().parse_args(words)
    try:
        return ACTS[given.act](given) or 0
    except Refusal as refusal:
        return _said(refusal, 2)
    except OSError as error:
        if (sentence := unusable(error)) is None:
            raise
        return _said(sentence, 2)
    except RuntimeError as failure:
        if not hasattr(failure, "status"):
            raise
        return _said(failure, failure.status)


def _said(sentence: Exception | str, status: int) -> int:
    print(f"saistudy: {sentence}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
