"""A real Slurm on this machine: munge, controller and nodes with GPUs, two of two or four of one, for a test.

The GPUs are device files without a device, so what a job is given shows in CUDA_VISIBLE_DEVICES alone. Each
node is a slurmd of its own name and ports. Snakemake's executor drops SLURM_CONF, so the configuration must
stand at /etc/slurm/slurm.conf: where one stands that is not of a test, this machine has a Slurm, which is
left alone; what a killed test left there is taken over.
"""

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

CONF = Path("/etc/slurm/slurm.conf")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
NODES = ("node1", "node2")
FOUR = ("node1", "node2", "node3", "node4")
DEVICES = ("/dev/null", "/dev/zero")  # what stands for GPUs
NAME = "ClusterName=saistudy-test"
GRACE_S = 20  # between the signal and the end of an evicted job

SLURM_CONF = """\
{name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
GresTypes=gpu
MinJobAge=600
KillWait=10
InactiveLimit=0
SlurmdTimeout=20
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2,requeue_delay=1
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace}
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
NODE_CONF = """\
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=64000 Gres=gpu:{gpus_n}
"""


def lacking() -> str:
    """Why no Slurm can be started here; empty where one can."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if os.geteuid():
        return "only root can start a Slurm whose configuration stands in /etc/slurm"
    if absent:
        return (
            f"apt-get install slurm-wlm slurmctld slurmd slurm-client munge: {', '.join(absent)} are absent"
        )
    return f"{CONF} is there: this machine has a Slurm" if CONF.exists() and not _left_over() else ""


def _left_over() -> bool:
    """Whether the configuration is one of a test that was killed, with nothing of its cluster alive."""
    alive = {process.info["name"] for process in psutil.process_iter(["name"])}
    return CONF.read_text().startswith(NAME) and not alive & {"slurmctld", "slurmd"}


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


def _free_ports(n: int) -> list[int]:
    held = [socket.socket() for _ in range(n)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


class Slurm:
    """The cluster; `with Slurm(folder) as slurm`, and nothing of it is left afterwards.

    Args:
        nodes: their names; gpus_n: GPUs of each, one or two.
    """

    def __init__(self, folder: Path, nodes: tuple[str, ...] = NODES, gpus_n: int = 2):
        self.folder, self.nodes, self.gpus_n, self.daemons = folder, nodes, gpus_n, {}

    def __enter__(self) -> "Slurm":
        for name in ("munge", "state", *(f"spool-{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True)
        for part in [self.folder, *self.folder.parents]:  # munge wants to reach its socket
            if part.stat().st_mode & 0o055 != 0o055 and part != Path("/"):
                part.chmod(0o755)
        try:
            self._configure()
            self._munge()
            self.controller()
            for node in self.nodes:
                self.node(node)
            self._until(self._idle)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for name in list(self.daemons):
            self.kill(name)
        for process in psutil.process_iter(["name"]):
            with suppress(psutil.Error):  # no other Slurm is on this machine: see `lacking`
                node = process.environ().get("SLURMD_NODENAME")
                if process.info["name"] == "slurmstepd" or node in self.nodes:
                    process.kill()
        for file in (CONF, *(CONF.with_name(name) for name in ("gres.conf", "cgroup.conf"))):
            file.unlink(missing_ok=True)

    def _idle(self) -> bool:
        states = self.says("sinfo", "-h", "-N", "-o", "%t", "-p", "main", check=False).split()
        return states == ["idle"] * len(self.nodes)

    def _configure(self) -> None:
        CONF.parent.mkdir(exist_ok=True)
        host, ports = socket.gethostname().split(".")[0], _free_ports(1 + len(self.nodes))
        nodes = [
            NODE_CONF.format(node=node, host=host, port=port, gpus_n=self.gpus_n)
            for node, port in zip(self.nodes, ports[1:], strict=True)
        ]
        whole = {"name": NAME, "folder": self.folder, "host": host, "ports": ports, "grace": GRACE_S}
        CONF.write_text("".join([SLURM_CONF.format(**whole), *nodes]))
        gpus = [
            f"NodeName={node} Name=gpu File={file}\n"
            for node in self.nodes
            for file in DEVICES[: self.gpus_n]
        ]
        CONF.with_name("gres.conf").write_text("".join(gpus))
        CONF.with_name("cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")

    def _munge(self) -> None:
        place = self.folder / "munge"
        (place / "key").write_bytes(os.urandom(128))
        (place / "key").chmod(0o400)
        words = ["munged", "--foreground", "--force", f"--key-file={place}/key", f"--socket={place}/socket"]
        words += [f"--pid-file={place}/munged.pid", f"--log-file={place}/log", f"--seed-file={place}/seed"]
        self._start("munged", *words)
        self._until((place / "socket").exists)

    def controller(self) -> None:
        """Start the controller; it takes up the jobs that it knew."""
        self._start("slurmctld", "slurmctld", "-D")

    def node(self, node: str) -> None:
        """Start a node."""
        self._start(node, "slurmd", "-D", "-N", node)

    def _start(self, name: str, *words: str) -> None:
        environ, log = os.environ | {"PATH": _path()}, (self.folder / f"{name}.out").open("ab")
        self.daemons[name] = subprocess.Popen(words, env=environ, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """kill -9 of a daemon: slurmctld, node1, node2 or munged."""
        self.daemons[name].kill()
        self.daemons.pop(name).wait()

    def lose(self, node: str) -> None:
        """A node as after a power failure: its slurmd and all that it ran are gone in this moment."""
        mine = [p for p in psutil.process_iter(["name"]) if self._runs_on(p, node)]
        self.kill(node)
        for process in mine:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _runs_on(self, process: psutil.Process, node: str) -> bool:
        with suppress(psutil.Error):
            return process.environ().get("SLURMD_NODENAME") == node
        return False

    def says(self, *words: str, check: bool = True) -> str:
        """What a command of Slurm prints."""
        environ = os.environ | {"PATH": _path(), "SLURM_CONF": str(CONF)}
        done = subprocess.run(words, capture_output=True, text=True, env=environ)
        assert done.returncode == 0 or not check, f"{words}: {done.stderr}"
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Every job known: id, state, comment, node, reason."""
        shape = "%i|%T|%k|%N|%r"
        rows = self.says("squeue", "--all", "--states=all", "-h", "-o", shape, check=False).splitlines()
        keys = ("id", "state", "comment", "node", "reason")
        return [dict(zip(keys, row.split("|"), strict=True)) for row in rows]

    def _until(self, true, s: float = 30) -> None:
        end = time.monotonic() + s
        while not true():
            if time.monotonic() > end:
                logs = "\n".join(p.read_text(errors="replace")[-1500:] for p in self.folder.glob("*.*o*"))
                raise AssertionError(f"Slurm did not come up:\n{logs}")
            time.sleep(0.1)
