"""The machine: what a bare one is told to install, what pinning does to torch, what is recorded."""

import ast
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from saistudy import hardware
from saistudy.paths import ROOT

SCRIPT = ROOT / "saistudy" / "hardware.py"


def script(**env: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=env)


def python(code: str, **env: str) -> str:
    """What a fresh Python prints that imports the package from here."""
    clean = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=clean | env,
    )
    return told.stdout


def test_a_machine_that_lacks_nothing_is_told_nothing():
    told = script(PATH=os.environ["PATH"])
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_a_bare_machine_gets_one_line_with_just_what_is_missing(tmp_path):
    (tmp_path / "make").symlink_to("/bin/true")
    told = script(PATH=str(tmp_path))
    assert (told.returncode, told.stdout) == (1, "apt-get install -y git\n")


def test_a_library_that_cannot_be_loaded_is_missing():
    assert hardware._loads("libc.so.6")
    assert not hardware._loads("libnosuch.so.1")
    # one package may bring two of the libraries and is named once
    line = hardware.complaint((3, 11), list(dict.fromkeys(hardware.LIBRARIES.values())))
    assert line == "apt-get install -y libgl1 libglib2.0-0 libxcb1"


@pytest.mark.parametrize(("version", "fits"), [((3, 10), 0), ((3, 11), 1), ((3, 13), 1), ((3, 14), 0)])
def test_a_python_out_of_range_is_named(version, fits):
    line = hardware.complaint(version, ["git"])
    assert line.startswith("apt-get" if fits else f"Python {version[0]}.{version[1]} found")


def test_the_script_imports_the_standard_library_only_and_parses_on_an_old_python():
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 8))
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> list[str]:
    """What torch, oneDNN and Ultralytics say in a process that was pinned and quieted first."""
    code = (
        "from saistudy import hardware; hardware.pin_threads(); hardware.quiet()\n"
        "import torch\n"
        "print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())\n"
        "torch.nn.Conv2d(64, 64, 3)(torch.ones(4, 64, 64, 64))\n"
        "from ultralytics import utils\n"
        "print(utils.ONLINE, utils.AUTOINSTALL, utils.VERBOSE, utils.TESTS_RUNNING)\n"
        "print(utils.USER_CONFIG_DIR)"
    )
    work = str(tmp_path_factory.mktemp("work"))
    env = {
        "CUDA_VISIBLE_DEVICES": "",
        "YOLO_CONFIG_DIR": "",
        "ONEDNN_VERBOSE": "1",
        "PYTEST_CURRENT_TEST": "x",
    }
    return [work, *python(code, SAISTUDY_WORK=work, **env).splitlines()]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is a word of x86")
def test_pinned_torch_has_one_thread_and_avx2_kernels(told):
    assert "AVX2 1" in told
    # oneDNN says itself which kernels it may use
    assert [line.partition("isa:")[2] for line in told if "isa:" in line] == ["Intel AVX2"]


def test_quiet_ultralytics_is_offline_and_keeps_its_settings_here(told):
    assert "False False False False" in told
    assert Path(told[-1]).is_relative_to(Path(told[0]) / "ultralytics")


def test_what_the_user_set_stays():
    code = (
        "import os; from saistudy import hardware; hardware.pin_threads()\n"
        "print(os.environ['OMP_NUM_THREADS'], os.environ['MKL_NUM_THREADS'])"
    )
    assert python(code, OMP_NUM_THREADS="7") == "7 1\n"


def test_the_environment_of_a_record_is_the_machine():
    seen = hardware.environment()
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen
    # /proc and nproc are the kernel's own word
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert seen["ram_gib"] == pytest.approx(kib / 2**20, abs=0.01)
    nproc = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    assert seen["cores_n"] == int(subprocess.check_output(["nproc"], env=nproc))
    lock = subprocess.check_output(["sha256sum", ROOT / "requirements.lock"], text=True)
    assert seen["lock_sha256"] == lock.split()[0]
    assert seen["versions"]["ultralytics"].startswith("8.4.")
    assert seen["shm_gib"]["free"] <= seen["shm_gib"]["total"]


def test_the_commit_is_that_of_the_repository_and_none_outside_one(tmp_path):
    copy = tmp_path / "saistudy" / "hardware.py"
    copy.parent.mkdir()
    copy.write_text(SCRIPT.read_text())
    code = "import hardware, json; print(json.dumps(hardware.environment()['git']))"
    env = {"PYTHONPATH": str(copy.parent), "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}

    def recorded() -> dict:
        told = subprocess.check_output([sys.executable, "-c", code], cwd="/", env=os.environ | env)
        return json.loads(told)

    def git(*words: str) -> str:
        name = ["-c", "user.name=n", "-c", "user.email=e"]
        return subprocess.check_output(["git", "-C", tmp_path, *name, *words], text=True).strip()

    assert recorded() == {"commit": None, "dirty": None}
    git("init", "-q")
    git("add", "saistudy/hardware.py")
    git("commit", "-qm", "one", "--no-gpg-sign")
    (tmp_path / ".git" / "info" / "exclude").write_text("__pycache__\n")
    assert recorded() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    copy.write_text(copy.read_text() + "\n")
    assert recorded()["dirty"] is True
