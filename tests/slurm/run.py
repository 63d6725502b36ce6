"""make test-slurm: a real Slurm cluster of two nodes on this machine, the tests on it, and nothing left behind.

Installs Debian's slurm-wlm and munge where they are missing, which needs root, as starting them does. Words that are
given go on to pytest.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
NODES = ("one", "two")
CONF = """
ClusterName=embedlab
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=1
KillWait=2
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000 State=UNKNOWN
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def install() -> None:
    """Get what is missing from Debian."""
    needed = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
    if os.geteuid():
        sys.exit("make test-slurm needs root: it starts munged, slurmctld and slurmd, and installs them if need be.")
    if all(map(shutil.which, needed)):
        return
    if not shutil.which("apt-get"):
        sys.exit("make test-slurm needs Slurm's daemons and munge; without apt-get they are yours to install.")
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "slurm-wlm", "munge"], **quiet)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def daemon(command: list[str], log: Path, **settings: object) -> Iterator[subprocess.Popen]:
    """A program in the foreground for the length of a block."""
    with log.open("w") as said, subprocess.Popen(command, stdout=said, stderr=said, **settings) as process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def munge(folder: Path) -> Iterator[None]:
    """munged with a key and a socket of its own."""
    user = pwd.getpwnam("munge")
    folder.mkdir()
    os.chmod(folder.parent, 0o755)  # munged looks at all that is above its files
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o400)
    for path in (folder, folder / "key"):
        os.chown(path, user.pw_uid, user.pw_gid)
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    command = ["munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in files.items())]
    who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with daemon(command, folder.parent / "munged.out", **who) as process:
        waited((folder / "socket").exists, process, folder.parent)
        yield


def waited(true, process: subprocess.Popen, folder: Path) -> None:
    """Wait until it is so; where a daemon ended before, say what it wrote."""
    end = time.monotonic() + 60
    while not true():
        if process.poll() is not None or time.monotonic() > end:
            logs = "\n".join(f"── {path.name} ──\n{path.read_text()[-2000:]}" for path in folder.glob("*.[lo][ou][gt]"))
            sys.exit(f"{process.args[0]} does not start.\n{logs}")
        time.sleep(0.1)


def idle_nodes() -> int:
    told = subprocess.run(["sinfo", "--noheader", "--Node", "--format", "%t"], capture_output=True, text=True)
    return told.stdout.split().count("idle")


def end_jobs() -> None:
    """Kill what a test left, and wait for its end: steps outlive a slurmd that is gone."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        subprocess.run(["scancel", "--full", "--signal=KILL", "--user=root"], capture_output=True)
        subprocess.run(["scancel", "--user=root"], capture_output=True)
        if not subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout.strip():
            return
        time.sleep(0.2)


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """The cluster, and the environment in which its commands find it."""
    folder = Path(tempfile.mkdtemp(prefix="embedlab-slurm-"))
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(munge(folder / "munge"))
            for name in ("state", *(f"spool-{node}" for node in NODES)):
                (folder / name).mkdir()
            conf = folder / "slurm.conf"
            conf.write_text(CONF.format(folder=folder, host=socket.gethostname().split(".")[0], ports=free_ports(3)))
            os.environ["SLURM_CONF"] = str(conf)
            stack.enter_context(daemon(["slurmctld", "-D", "-i"], folder / "slurmctld.out"))
            for node in NODES:
                last = stack.enter_context(daemon(["slurmd", "-D", "-N", node], folder / f"slurmd-{node}.out"))
            waited(lambda: idle_nodes() == len(NODES), last, folder)
            stack.callback(end_jobs)
            yield {**os.environ, "EMBEDLAB_SLURM": str(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    install()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with cluster() as environment:
        tests = [sys.executable, "-m", "pytest", str(HERE / "test_slurm.py"), *sys.argv[1:]]
        return subprocess.run(tests, env=environment, cwd=HERE.parents[1]).returncode


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
