"""SLURM as the provider of `isoflop cluster --on=slurm`: batch scripts that sbatch submits."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from data.files import to_path
from launch.checkout import ROOT
from launch.cluster import boot, tools
from launch.cluster.record import Record
from launch.cluster.request import Plan, Request
from launch.errors import writing

USES = {"nodes", "accelerator", "workdir", "job", "config", "queue", "priority", "time"}
NEEDS = ("nodes", "workdir", "config")
JOBS = ("sweep", "train", "parts")
CARRIES_CODE = False  # the nodes share this file system
ENDS = False
INSTALL = "run this on a login node of the cluster"
WARNING = 120  # seconds between SIGTERM and the end of the allocation

CAVEAT = (
    "a job that SLURM preempts comes back only if the partition has PreemptMode=REQUEUE, and has\n"
    f"time to save only if its GraceTime is {WARNING} s or more: see `scontrol show partition`.\n"
    "With PreemptMode=CANCEL, submit it again by hand; trials go on from their checkpoints"
)


def check(request: Request) -> None:
    """ValueError for what a batch script cannot say; asks nobody."""
    found = request.accelerator
    if found and found.tpu:
        raise ValueError(
            f"accelerator={found.slice.name}: SLURM gives nodes with GPUs; write h100-8 for eight "
            "a node, or drop it for nodes without"
        )
    if "://" in request.workdir:
        raise ValueError(
            f"workdir={request.workdir} is a bucket, and sbatch reads scripts from files; give a "
            "folder that all nodes share"
        )
    if not request.workdir.startswith("/"):
        raise ValueError(
            f"workdir={request.workdir} is relative; give the full path of a folder that all nodes "
            "share"
        )


def preflight(request: Request) -> None:
    for tool in ("sbatch", "squeue", "scancel"):
        tools.require(tool, "slurm", INSTALL)


def plan(request: Request) -> Plan:
    """The scripts by file name, in the order in which they are submitted."""
    jobs = {"sweep": "one job with Ray", "train": "one job", "parts": "an array and a last job"}
    lines = (
        f"{jobs[request.job]} on {request.nodes} nodes, submitted by sbatch; scripts and logs lie "
        f"in {request.home}",
        CAVEAT.replace("\n", " "),
    )
    return Plan(lines, SCRIPTS[request.job](request))


def create(request: Request, record: Record, say: Callable[[str], None]) -> None:
    """Writes the scripts into the shared folder and submits those that are not submitted yet. Each
    waits until the one before has ended. A script is recorded before it is submitted; if that is
    all that is known, its job is looked for by name."""
    home, before = to_path(request.home), ""
    known = {resource["script"]: resource for resource in record.resources}
    for name, text in plan(request).documents.items():
        if name not in known:
            known[name] = {"script": name, "job": ""}
            record.resources.append(known[name])
            record.save()
        elif not known[name]["job"]:
            known[name]["job"] = _job(request, name)
        if not known[name]["job"]:
            with writing("workdir", request.workdir):
                home.mkdir(parents=True, exist_ok=True)
                (home / name).write_text(text)
            after = [f"--dependency=afterany:{before}"] if before else []
            said = tools.run(["sbatch", "--parsable", *after, str(home / name)])
            known[name]["job"] = said.strip().partition(";")[0]
            say(f"submitted {name} as job {known[name]['job']}")
        record.save()
        before = known[name]["job"]


def resolve(request: Request) -> dict[str, str]:
    """SLURM's jobs are where its tools are: there is nothing to find out."""
    return {}


def follow(
    request: Request, record: Record, say: Callable[[str], None], stopped: Callable[[], bool]
) -> int | None:
    """SLURM requeues the jobs; there is nothing to do here."""
    return 0


def state(request: Request, record: Record) -> list[str]:
    """One line for each job."""
    lines = []
    for resource in record.resources:
        job = resource["job"] or _job(request, resource["script"])
        found = _squeue(job, "%i %T %M %R") if job else []
        lines += [f"{resource['script']}: {line}" for line in found] or [
            f"{resource['script']}: " + (f"job {job} has ended" if job else "not submitted")
        ]
    return lines


def delete(request: Request, record: Record, say: Callable[[str], None]) -> list[str]:
    """Cancels the recorded jobs that still carry the name of this cluster. One that SLURM does not
    know any more has ended."""
    for resource in record.resources:
        job = resource["job"] or _job(request, resource["script"])
        names = set(_squeue(job, "%j")) if job else set()
        if names == {_name(request)}:
            tools.run(["scancel", job])
            say(f"cancelled job {job}")
        elif names:
            say(f"job {job} is called {', '.join(names)}; it is left alone")
    return []


def _job(request: Request, script: str) -> str:
    """The number of the job of a script of this cluster; '' if none is queued or runs."""
    tools.require("squeue", "slurm", INSTALL)
    said = tools.run(["squeue", "--noheader", f"--name={_name(request)}", "--format=%F %o"])
    for line in said.splitlines():
        number, _, command = line.strip().partition(" ")
        if command.strip() == f"{request.home}/{script}":
            return number
    return ""


def _squeue(job: str, form: str) -> list[str]:
    """The lines of squeue about a job; none where it has ended."""
    tools.require("squeue", "slurm", INSTALL)
    try:
        said = tools.run(["squeue", "--noheader", f"--jobs={job}", f"--format={form}"])
    except ValueError as error:
        if "Invalid job id" in str(error):
            return []
        raise
    return [line.strip() for line in said.splitlines() if line.strip()]


def _name(request: Request) -> str:
    return f"{request.name}-{request.id}"


def _options(request: Request, nodes: int, **more: str) -> str:
    """The #SBATCH lines."""
    given = {
        "job-name": _name(request),
        "comment": f"isoflop-cluster={_name(request)}",
        "nodes": str(nodes),
        "ntasks-per-node": "1",
        "exclusive": "",
        "gpus-per-node": str(request.accelerator.chips) if request.accelerator else None,
        "partition": request.queue or None,
        "qos": request.priority or None,
        "time": request.time or None,
        "signal": f"B:TERM@{WARNING}",
        "requeue": "",
        "open-mode": "append",
        "output": f"{request.home}/{'%x-%A_%a' if 'array' in more else '%x-%j'}.log",
    } | more
    shown = (f"--{key}={value}" if value else f"--{key}" for key, value in given.items()
             if value is not None)  # fmt: skip
    return "\n".join(f"#SBATCH {option}" for option in shown)


def _header(request: Request, nodes: int, what: str, **more: str) -> str:
    return f"""\
#!/bin/bash
{_options(request, nodes, **more)}
#
# {what}
# Written by isoflop cluster up.
{_comment(CAVEAT[0].upper() + CAVEAT[1:] + ".")}
set -u
cd {shlex.quote(str(ROOT))} || exit 2
export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH
"""


def _comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in text.splitlines())


# The batch shell, not the steps, gets SIGTERM (`B:`). It passes it on, waits until trials are
# saved, and asks for the job to be queued again: SLURM does not do that at the time limit. 127 is
# not a signal but a command that does not exist, which another attempt would not mend.
_TRAP = """\
child=
trap '[ -n "$child" ] && kill -TERM "$child"' TERM
supervise() {
  "$@" &
  child=$!
  until wait "$child"; code=$?; ! kill -0 "$child" 2>/dev/null; do :; done
  wait "$child" 2>/dev/null  # a signal may have interrupted the wait before
  again=$?
  [ "$again" = 127 ] || code=$again
}
finish() {
  echo "ended with $code"
  if [ "$code" = 42 ] || [ "$code" -gt 128 ]; then
    scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
}
"""


def _sweep(request: Request) -> dict[str, str]:
    """Ray on every node of the allocation, the driver on the first."""
    address = '--address="$address:$port"'
    driver = shlex.join(boot.driver(request, "HEAD")).replace("--address=HEAD", address)
    script = f"""\
{_header(request, request.nodes, "Starts Ray on all nodes, the driver of the sweep on the first.")}
{_TRAP}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | awk '{{print $1}}')
port=$((20000 + SLURM_JOB_ID % 10000))
export RAY_ADDRESS="$address:$port" RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n')
export RAY_AUTH_TOKEN

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \\
  ray start --head --node-ip-address="$address" --port="$port" --block &
ray=$!
until ray status >/dev/null 2>&1; do
  kill -0 "$ray" || {{ echo "Ray's head has ended"; exit 1; }}
  sleep 1
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) \\
    --exclude="$head" ray start --address="$address:$port" --block &
fi

supervise {driver}
finish
"""
    return {"sweep.sh": script}


def _train(request: Request) -> dict[str, str]:
    """One run: a process a node, which find each other by SLURM's variables."""
    script = f"""\
{_header(request, request.nodes, "One run on all nodes.")}
{_TRAP}
supervise srun --kill-on-bad-exit=0 {shlex.join(request.command("train"))}
finish
"""
    return {"train.sh": script}


def _parts(request: Request) -> dict[str, str]:
    """An array with a share of the trials each, and the job that ends the sweep after it."""
    share, tasks = shlex.join(request.command("sweep")), f"1-{request.nodes}"
    array = f"""\
{_header(request, 1, "One share of the sweep for each task of the array.", array=tasks)}
{_TRAP}
supervise {share} --part="$SLURM_ARRAY_TASK_ID/{request.nodes}"
finish
"""
    last = f"""\
{_header(request, 1, "What is left of the sweep, its held-out trials and its law.")}
{_TRAP}
supervise {share}
finish
"""
    return {"parts.sh": array, "last.sh": last}


SCRIPTS = {"sweep": _sweep, "train": _train, "parts": _parts}
