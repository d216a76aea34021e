"""A real Slurm of two nodes on this machine, in a folder of its own: munged, slurmctld and two slurmd, started by root.

    with SlurmCluster(folder) as cluster:
        subprocess.run(["sinfo"], env={**os.environ, **cluster.environment})

Nothing of a Slurm that the machine may have is touched: the daemons have their own ports, keys and folders.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import psutil

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo")
_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
NODES = ("n1", "n2")

# Waits that a cluster counts in minutes are seconds here: a node that is silent, a job that is to end, one that is requeued
# (it may begin again when its credential has expired).
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=0,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=10
KillWait=5
MinJobAge={min_job_age}
ReturnToService=2
MaxArraySize=101
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=2 RealMemory=8000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=2 RealMemory=8000 Gres=gpu:2
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=120 PriorityTier=1 State=UP
PartitionName=urgent Nodes=n[1-2] MaxTime=120 PriorityTier=10 State=UP
PartitionName=one Nodes=n1 MaxTime=5 PriorityTier=1 State=UP
"""


def why_not() -> str | None:
    """Why no Slurm can be started here; None where one can."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"no Slurm here ({', '.join(missing)}): apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "a Slurm is started by root alone"


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class SlurmCluster:
    """A Slurm of two nodes `n1` and `n2`, each with two cores, 8000 MB and two made-up GPUs.

    Partitions: `main`, the default; `urgent`, whose jobs take the place of those of main, which are requeued; `one`, n1 for 5 minutes.

    Args:
        folder: For its files; short, since the path of a socket is at most 108 characters.
        min_job_age: Seconds for which it remembers ended jobs.
    """

    def __init__(self, folder: Path, *, min_job_age: int = 300) -> None:
        self.folder = folder
        ports = dict(zip(("ctld", *NODES), _free_ports(3), strict=True))
        self._conf = _CONF.format(
            host=socket.gethostname().split(".")[0], folder=folder, min_job_age=min_job_age, **ports
        )
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._seen: set[psutil.Process] = set()  # the daemons and what they have started

    @property
    def environment(self) -> dict[str, str]:
        """What the commands of Slurm need to find this one."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH}

    def __enter__(self) -> Self:
        for name in ("state", "munge", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        for number in range(2):
            (self.folder / f"gpu{number}").symlink_to("/dev/null")  # a device, as Slurm wants it
        (self.folder / "slurm.conf").write_text(self._conf)
        (self.folder / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={self.folder}/gpu[0-1]\n")
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        (self.folder / "munge").chmod(0o711)
        try:
            self._start("munged", "munged", "--foreground", "--force", *self._munge_options())
            self._wait_for("munged", lambda: (self.folder / "munge" / "socket").exists())
            self.start_controller()
            for node in NODES:
                self.start_node(node)
            self._wait_for("nodes", lambda: self.nodes_in_state("idle") == list(NODES))
        except BaseException:
            self.__exit__()
            raise
        return self

    def _munge_options(self) -> list[str]:
        folder = self.folder / "munge"
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        return [f"--{option}={folder / name}" for option, name in names.items()]

    def _start(self, name: str, program: str, *arguments: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                [shutil.which(program, path=_PATH) or program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def __exit__(self, *_exception: object) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", "--user=root")
        for name in list(self._daemons):
            self.kill(name)

    def run(self, *command: str, timeout: float = 30) -> str:
        """The output of a command of Slurm."""
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **self.environment},
            check=False,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout.strip()

    def queue(self, form: str = "%i|%T|%r|%j") -> list[list[str]]:
        """The jobs that wait, run or have just ended, in order of their numbers, with these fields of squeue."""
        lines = self.run("squeue", "--noheader", "--array", "--states=all", "--sort=i", f"--format={form}").splitlines()
        return [line.split("|") for line in lines if line.strip()]

    def nodes_in_state(self, *states: str) -> list[str]:
        """The nodes whose state is one of these, in order."""
        try:
            lines = self.run("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %t").splitlines()
        except subprocess.SubprocessError:
            return []
        return sorted(node for node, state in map(str.split, lines) if state in states)

    def start_controller(self) -> None:
        """Start slurmctld; its state is that of the last one."""
        self._start("slurmctld", "slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        self._wait_for("slurmctld", lambda: self._is_up())

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._start(node, "slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))

    def _is_up(self) -> bool:
        with contextlib.suppress(subprocess.SubprocessError):
            return "is UP" in self.run("scontrol", "ping")
        return False

    def stop_controller(self) -> None:
        """End slurmctld as for a restart. (By -9 it loses what happened in its last seconds, its jobs too.)"""
        daemon = self._daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait(30)

    def kill(self, name: str) -> None:
        """End a daemon with -9: `munged`, `slurmctld`, or a node and all that runs on it, as if it had lost its power."""
        daemon = self._daemons.pop(name)
        victims = [*self._steps_of(name), daemon] if name in NODES else [daemon]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                victim.kill()
        daemon.wait(10)

    def _steps_of(self, node: str) -> list[psutil.Process]:
        """The processes that run jobs on a node, and the jobs; they are no children of its daemon."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if not process.name().startswith("slurmstepd") and "SLURM_JOB_ID" not in process.environ():
                    continue
                environment = process.environ()
                if environment.get("SLURM_CONF") != self.environment["SLURM_CONF"]:
                    continue
                if environment.get("SLURMD_NODENAME") == node:
                    found += [process, *(p for p in process.parents() if p.name().startswith("slurmstepd"))]
        return found

    def _wait_for(self, what: str, ready: object, seconds: float = 30) -> None:
        assert callable(ready)
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not start; see {self.folder}")
            time.sleep(0.1)
