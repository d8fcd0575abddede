# The order of notebooks and runs. What is done is known from stamps named by run identity, never from results/.
import shlex

from saistudy.study import forecast

PROFILE = config["profile"]
RUNS = forecast.runs(PROFILE, full=bool(config.get("full")), speed=config.get("notebooks") == "all")
forecast.drop_stale_stamps(PROFILE, RUNS)


def stamp(name):
    return str(forecast.stamp(PROFILE, RUNS[name]))


def command(run):
    parts = [*run.command, "--output", str(forecast.output(PROFILE, run)), "--stamp", stamp(run.name)]
    return shlex.join(parts)


rule all:
    input:
        [stamp(name) for name in RUNS],


rule run:
    input:
        lambda wildcards: [stamp(name) for name in RUNS[wildcards.run].needs],
    output:
        str(forecast.stamp_folder(PROFILE) / "{run}.{identity,[0-9a-f]+}"),
    params:
        command=lambda wildcards: command(RUNS[wildcards.run]),
    shell:
        "{params.command}"
