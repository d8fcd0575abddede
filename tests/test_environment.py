"""pyproject.toml, the lock, constraints.txt and environment.yml name one environment."""

import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from saistudy import hardware
from saistudy.paths import ROOT

PYTHONS = ("3.11", "3.12", "3.13")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
PIP = next(entry["pip"] for entry in CONDA if isinstance(entry, dict))


def locked(python: str) -> dict[str, str]:
    """Package to version that the lock holds for a Python on Linux."""
    machine = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    pinned = re.findall(r"^([\w.-]+)==(\S+)(?: ; ([^\\\n]+))?", LOCK, re.MULTILINE)
    here = [p for p in pinned if not p[2] or Marker(p[2].strip()).evaluate(machine)]
    assert len({canonicalize_name(name) for name, *_ in here}) == len(here)
    return {canonicalize_name(name): version for name, version, _ in here}


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_met_by_the_lock(python):
    versions = locked(python)
    wanted = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    for requirement in map(Requirement, wanted + PROJECT["build-system"]["requires"]):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), (str(requirement), version)


def test_every_package_of_the_lock_has_hashes_and_none_an_address():
    assert "://" not in LOCK
    blocks = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(blocks) > 100
    for block in blocks:
        assert re.fullmatch(r"\S+==[^\n]+(?:\n +--hash=sha256:[0-9a-f]{64}(?: \\)?)+", block), block


def test_the_constraints_are_the_lock_without_hashes():
    lines = [line.rstrip(" \\") for line in LOCK.splitlines() if "--hash" not in line]
    assert (ROOT / "constraints.txt").read_text().splitlines() == lines


def test_make_would_write_the_same_constraints(tmp_path):
    for name in ("Makefile", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    subprocess.run(["make", "-s", "constraints.txt"], cwd=tmp_path, check=True)
    assert (tmp_path / "constraints.txt").read_text() == (ROOT / "constraints.txt").read_text()


def test_conda_users_get_the_same_versions():
    assert PIP == ["-c constraints.txt", "-e ."]
    assert "pip" in CONDA
    python = next(entry for entry in CONDA if str(entry).startswith("python="))
    assert python.removeprefix("python=") in PYTHONS


def test_one_range_of_pythons_everywhere():
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    every = [f"3.{minor}" for minor in range(8, 20)]
    assert tuple(p for p in every if allowed.contains(p)) == PYTHONS
    # what the check before the installation and the Makefile take is that range
    fits = [p for p in every if not hardware.complaint((3, int(p[2:])), [])]
    assert tuple(fits) == PYTHONS
    low, high = hardware.PYTHONS
    assert f"{low} <= sys.version_info[:2] < {high}" in (ROOT / "Makefile").read_text()


def test_make_picks_the_first_python_that_fits(tmp_path):
    for name, status in (("python3", 1), ("python3.13", 1), ("python3.12", 0), ("python3.11", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    show = ["make", "-s", "-f", "-", "show"]
    text = (ROOT / "Makefile").read_text() + "\nshow:\n\t@echo $(PYTHON)\n"
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    told = subprocess.run(show, input=text, cwd=ROOT, env=env, capture_output=True, text=True)
    assert told.stdout == "python3.12\n"
