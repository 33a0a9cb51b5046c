"""A throw-away Slurm cluster on the loopback device: real daemons, virtual nodes, fake GPUs.

Nothing of it is global: every daemon runs in the foreground as a child of the test process, keeps
its state in one temporary folder, listens on ports that were free at its start and is stopped
by its own process id. Neither systemd nor control groups are needed.
"""

import contextlib
import itertools
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

INSTALL = "apt-get install --no-install-recommends slurm-wlm munge"
INSTALL_ACCOUNTING = f"{INSTALL} slurmdbd slurm-wlm-mysql-plugin mariadb-server"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
ACCOUNTING_PROGRAMS = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db")
# Name -> what it has of its own; jobs of a higher tier preempt those of a lower one.
PARTITIONS = {
    "gpu": "Default=YES DefaultTime=60 MaxTime=2-00:00:00 PriorityTier=1",
    "urgent": "DefaultTime=60 MaxTime=2-00:00:00 PriorityTier=10",
    # Jobs that are preempted here are ended, not queued again.
    "scavenge": "DefaultTime=60 MaxTime=2-00:00:00 PriorityTier=1 PreemptMode=CANCEL",
    # Takes jobs that ask for more time, and never starts them.
    "short": "MaxTime=00:03:00 PriorityTier=1",
}


def missing(accounting: bool = False) -> str | None:
    """What keeps this machine from running the cluster.

    Args:
        accounting: whether slurmdbd and its database are wanted too.

    Returns:
        One sentence with the way to mend it, or None.
    """
    programs = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    absent = [name for name in programs if not find(name)]
    if absent:
        how = INSTALL_ACCOUNTING if accounting else INSTALL
        return f"Slurm is not installed ({', '.join(absent)} not found): {how}"
    if os.geteuid() != 0:
        return "the test cluster's daemons need root, e.g. in a container"
    return None


def find(program: str) -> str | None:
    """Path of a program, looked for in the system folders too."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Poll until the condition holds.

    Raises:
        TimeoutError: with `what` in its text, after the given seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)


# What slurmctld asks before it takes a job: refuses as MaxSubmitJobs does, error and words.
LIMIT = """
local taken = 0

function slurm_job_submit(job, partitions, user)
  local file = io.open("{folder}/limit")
  if not file then return slurm.SUCCESS end
  local limit = file:read("*n")
  file:close()
  local count = 0
  for _, other in pairs(slurm.jobs) do
    if other.job_state % 256 < 3 then count = count + 1 end
  end
  -- Jobs are known here a second after they were taken.
  if count < limit and os.time() > taken + 1 then
    taken = os.time()
    return slurm.SUCCESS
  end
  slurm.log_user("AssocMaxSubmitJobLimit")
  return 2050
end

function slurm_job_modify(job, record, partitions, user)
  return slurm.SUCCESS
end
"""


class Cluster:
    """One cluster, used as a context manager.

    Args:
        folder: an empty folder for configuration, state and logs; a short path (sockets).
        nodes: number of virtual nodes n1, n2, ...
        cpus: CPUs of each node; scheduled, not enforced.
        gpus: GPUs of each node: device files that lead to /dev/null.
        memory: MB of each node; a job that uses more than it asked for is killed.
        accounting: run slurmdbd and a database, so that `sacct` answers.
        min_job_age: seconds that slurmctld remembers a finished job (for `squeue`).
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 2,
        cpus: int = 16,
        gpus: int = 2,
        memory: int = 32000,
        accounting: bool = False,
        min_job_age: int = 300,
    ):
        self.folder = Path(folder)
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.cpus, self.gpus, self.memory = cpus, gpus, memory
        self.accounting, self.min_job_age = accounting, min_job_age
        self.daemons: dict[str, subprocess.Popen] = {}
        self.scratch = self.folder / "scratch"
        names = ["slurmctld", "slurmdbd", *self.nodes]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))

    def __enter__(self) -> "Cluster":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def env(self) -> Mapping[str, str]:
        """Environment in which Slurm's commands, and Snakemake, talk to this cluster."""
        # An outer Slurm or Snakemake must not leak into the tests.
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "SBATCH_", "SRUN_", "SNAKEMAKE_"))
        }
        clean["SLURM_CONF"] = str(self.folder / "slurm.conf")
        clean["PATH"] = f"{self.folder}/bin:{clean['PATH']}:/usr/sbin:/sbin"
        return clean

    def run(self, *command: str, check: bool = True) -> str:
        """Standard output of a command run against this cluster."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Write the configuration and bring everything up."""
        for name in ("log", "state", "munge", "bin", "dev", "scratch"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        # Not every container may mount; there the nodes share the folder.
        mount = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(self.scratch)]
        self.scratch_is_local = not subprocess.run(mount, capture_output=True).returncode
        self._make_gpus()
        self._write_configuration()
        self._start_munge()
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: len(self.idle_nodes()) == len(self.nodes), "nodes idle")

    def stop(self) -> None:
        """Cancel all jobs and end the daemons that this object started."""
        with contextlib.suppress(Exception):
            self.cancel_all()
        for name in [*self.nodes, "slurmctld", "slurmdbd", "mariadbd", "munged"]:
            self._end(name)

    def cancel_all(self) -> None:
        """Cancel every job and wait until they are gone."""
        self.run("scancel", "--user", "root")
        wait_until(lambda: not self.queue(), "jobs cancelled")

    def queue(self) -> list[str]:
        """Ids of the jobs that are not finished."""
        return self.run("squeue", "--noheader", "--format=%i").split()

    def wait_for_state(self, job: str, state: str, seconds: float = 60) -> None:
        """Wait until a job's state is the one named, e.g. RUNNING."""
        wait_until(
            lambda: self.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip() == state,
            f"job {job} {state}",
            seconds,
        )

    def limit_submissions(self, count: int | None) -> None:
        """How many jobs may be in the queue, waiting and running; None for as many as wanted.

        Slurm's own limit, MaxSubmitJobs, spares root, who runs the tests.
        """
        limit = self.folder / "limit"
        limit.unlink(missing_ok=True) if count is None else limit.write_text(str(count))

    def idle_nodes(self) -> list[str]:
        """Names of the nodes that run nothing and are up."""
        report = self.run(
            "sinfo", "-h", "-N", "-p", "gpu", "-t", "idle", "-o", "%N %T", check=False
        )
        return [line.split()[0] for line in report.splitlines() if line.endswith(" idle")]

    def start_controller(self) -> None:
        """Start slurmctld; it takes up the state that a former one left."""
        self._daemon("slurmctld", "slurmctld", "-D")
        wait_until(lambda: "UP" in self.run("scontrol", "ping", check=False), "slurmctld up")

    def stop_controller(self) -> None:
        """End slurmctld, leaving nodes and jobs alone."""
        self._end("slurmctld")

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node, with a scratch folder that no other node sees."""
        start = [find("slurmd"), "-D", "-N", node]
        if self.scratch_is_local:
            private = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
            start = ["unshare", "--mount", "sh", "-c", private, str(self.scratch), *start]
        # The node's name marks the step managers, too, which inherit the daemon's environment.
        self._daemon(node, *start, SLURMD_NODENAME=node)

    def lose_node(self, node: str) -> None:
        """Take a node away as a power cut does: its jobs die, the controller declares it down."""
        job_steps = self._job_steps(node)
        self._end(node, signal.SIGKILL)
        # Stopped first: a step manager that outlived its job would report the job as failed.
        for how, pid in itertools.product((signal.SIGSTOP, signal.SIGKILL), job_steps):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, how)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def return_node(self, node: str) -> None:
        """Bring a lost node back."""
        self.start_node(node)
        self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)

    def _job_steps(self, node: str) -> list[int]:
        """Process groups of the jobs' own processes on a node, and of their step managers."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (process / "environ").read_bytes().split(b"\0")
                if f"SLURM_CONF={self.folder}/slurm.conf".encode() in environment and (
                    f"SLURMD_NODENAME={node}".encode() in environment
                ):
                    found.append(os.getpgid(int(process.name)))
        return sorted(set(found))

    def _daemon(self, name: str, program: str, *arguments: str, **environment: str) -> None:
        """Start a program in the foreground, its output in log/NAME."""
        with (self.folder / "log" / name).open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [find(program) or program, *arguments],
                env={**self.env, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        process = self.daemons.pop(name, None)
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _make_gpus(self) -> None:
        # A GPU that is only a count is dropped by gres/gpu, and a plain file sets no
        # CUDA_VISIBLE_DEVICES; a character device does both.
        for number in range(self.gpus):
            device = self.folder / "dev" / f"nvidia{number}"
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        munge.chmod(0o711)
        key = munge / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self._daemon(
            "munged",
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={munge}/socket",
            f"--pid-file={munge}/pid",
            f"--log-file={self.folder}/log/munge",
            f"--seed-file={munge}/seed",
        )
        wait_until((munge / "socket").exists, "munged up")

    def _start_accounting(self) -> None:
        data, connection = self.folder / "database", self.folder / "database.socket"
        self.run(
            *(find("mariadb-install-db"), "--no-defaults", "--user=root", f"--datadir={data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )
        self._daemon(
            "mariadbd",
            "mariadbd",
            *("--no-defaults", "--user=root", f"--datadir={data}", f"--socket={connection}"),
            *("--skip-networking", "--innodb-buffer-pool-size=64M"),
            "--innodb-lock-wait-timeout=900",
        )
        wait_until(connection.exists, "mariadbd up")
        # The client library finds the socket by this variable alone.
        self._daemon("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=str(connection))
        wait_until(
            lambda: "Cluster" in self.run("sacctmgr", "list", "cluster", check=False),
            "slurmdbd up",
        )
        self.run("sacctmgr", "-i", "add", "cluster", "test")
        self.run("sacctmgr", "-i", "add", "account", "lab")
        self.run("sacctmgr", "-i", "add", "user", "root", "account=lab")

    def _write_configuration(self) -> None:
        base, host = self.folder, socket.gethostname().split(".")[0]
        storage = (
            f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self.ports["slurmdbd"]}
AccountingStorageTRES=gres/gpu
AccountingStoragePass={base}/munge/socket
AccountingStoreFlags=job_comment
AccountingStorageEnforce=associations,limits"""
            if self.accounting
            else "AccountingStorageType=accounting_storage/none"
        )
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={self.ports[node]}"
            f" CPUs={self.cpus} Sockets=1 CoresPerSocket={self.cpus} ThreadsPerCore=1"
            f" RealMemory={self.memory} Gres=gpu:{self.gpus} State=UNKNOWN"
            for node in self.nodes
        )
        partitions = "\n".join(
            f"PartitionName={name} Nodes=ALL DefMemPerCPU=1000 State=UP {own}"
            for name, own in PARTITIONS.items()
        )
        (base / "slurm.conf").write_text(
            f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={self.ports["slurmctld"]}
AuthType=auth/munge
AuthInfo=socket={base}/munge/socket
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool.%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5,sched_min_interval=50000,batch_sched_delay=0
PriorityType=priority/basic
GresTypes=gpu
JobSubmitPlugins=lua
MinJobAge={self.min_job_age}
KillWait=2
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
Waittime=0
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
{storage}
{nodes}
{partitions}
"""
        )
        (base / "gres.conf").write_text(f"Name=gpu File={base}/dev/nvidia[0-{self.gpus - 1}]\n")
        (base / "cgroup.conf").write_text("CgroupAutomount=no\nCgroupPlugin=cgroup/v1\n")
        (base / "job_submit.lua").write_text(LIMIT.replace("{folder}", str(base)))
        slurmdbd = base / "slurmdbd.conf"
        slurmdbd.write_text(
            f"""AuthType=auth/munge
AuthInfo=socket={base}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={self.ports["slurmdbd"]}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
LogFile={base}/log/slurmdbd.log
PidFile={base}/slurmdbd.pid
"""
        )
        slurmdbd.chmod(0o600)
        # The jobstep executor takes SLURM_CONF out of the environment of its srun.
        wrapper = base / "bin" / "srun"
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={base}/slurm.conf exec {find("srun")} "$@"\n')
        wrapper.chmod(0o755)
