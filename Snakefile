# The order of notebooks and runs. What is done is known from stamps named by run identity, never from results/.
import shlex
import signal
import sys

sys.path.insert(0, workflow.basedir)  # the package of this checkout, installed or not
signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # for the run alone: Slurm sends it to all processes of a job

from saistudy.study import begun, forecast, slots, stamps

PROFILE = config.get("profile", "demo")
RUNS = forecast.runs(PROFILE, full=bool(config.get("full")), speed=config.get("notebooks") == "all")
JOB = forecast.study(PROFILE)["job"]
if workflow.is_main_process:  # a job on a cluster reads this file too, while others write stamps
    stamps.drop_stale(PROFILE, RUNS)
    begun.note_runs(PROFILE, RUNS)


def stamp(name):
    return str(stamps.of(PROFILE, RUNS[name]))


def gpus_n(run):
    return slots.wanted_n(PROFILE, run.notebook)


def command(run):
    parts = [sys.executable, *run.command[1:], *(["--gpu"] if gpus_n(run) else [])]
    return shlex.join([*parts, "--output", str(forecast.output(PROFILE, run)), "--stamp", stamp(run.name)])


rule all:
    input:
        [stamp(name) for name in RUNS],


rule run:
    input:
        lambda wildcards: [stamp(name) for name in RUNS[wildcards.run].needs],
    output:
        str(stamps.folder(PROFILE) / "{run}.{identity,[0-9a-f]+}"),
    params:
        command=lambda wildcards: command(RUNS[wildcards.run]),
    resources:
        gpu=lambda wildcards: gpus_n(RUNS[wildcards.run]),
        cpus_per_task=JOB["cpus_n"],
        mem_mb=JOB["mem_gib"] * 1024,
        runtime=JOB["runtime_h"] * 60,
    shell:
        "exec {params.command}"
