"""isoflop cluster: machines for sweeps and large runs, from SkyPilot, GKE, SLURM or Cloud TPU.

isoflop cluster up --on=tpu --name=ladder --accelerator=v5e-16 --slices=16 --spot \\
  --zone=us-central1-a --config=configs/isoflop.py --workdir=gs://bucket/ladder --dry_run
isoflop cluster status  # without --name, of all that have a record
isoflop cluster down --name=ladder

up says what it will create, with its list price, before it creates it; --dry_run stops there. A
record in --records names all that it created, and down deletes that and nothing else. What follows
-- are flags of the command that the machines run, `isoflop sweep` or `train`: -- --seeds=3
"""

import contextlib
import importlib
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from data.files import path_of
from launch import flags
from launch.cluster import PROVIDERS, Provider, bundle, provider_named, record
from launch.cluster.record import Record
from launch.cluster.request import JOBS, Request, check_name
from launch.errors import DONE, PREEMPTED, BadInput, bad_input
from launch.runners import ray_slices
from launch.runners.tasks import Interrupt

ACTIONS = ("up", "status", "down")
PLAIN = ("project", "context", "reservation", "valid_until", "image", "queue", "priority", "time")
CHOICES = ("accelerator", "slices", "nodes", "zone", "spot", "workdir", "job", "config", *PLAIN)


def _named(text: str, name: str) -> str | None:
    """A path that the machines will use. This one need not see it."""
    return str(path_of(text, name)) if text else None


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    text("action", None, f"{', '.join(ACTIONS)}; the word after `cluster`", values)
    text("on", None, f"who provides the machines: {', '.join(PROVIDERS)}", values)
    text("name", None, "of the cluster: letters, digits and dashes", values)
    flags.define_path("records", "clusters", "folder with a record of each cluster", values)
    text("accelerator", None, "of a slice or node: v5e-16, v5p:2x2x2, h100-8 (as compile)", values)
    whole("slices", 1, "TPU slices, or hosts with GPUs", lower_bound=1, flag_values=values)
    whole("nodes", 0, "slurm: nodes of the job; shares of --job=parts", 0, flag_values=values)
    text("zone", None, "tpu: one zone; sky: zones to try, with commas", values)
    absl_flags.DEFINE_boolean("spot", False, "preemptible machines, at a lower price", values)
    shared = "folder that all machines share: gs://…, s3://…, slurm: a path"
    flags.define_path("workdir", None, shared, values, _named)
    text("job", "sweep", "".join(f"{key}: {what}; " for key, what in JOBS.items())[:-2], values)
    text("config", None, "what to run: a FILE.py of the checkout; without, Ray waits", values)
    text("project", None, "tpu: Google Cloud project; default: that of your credentials", values)
    text("reservation", None, "tpu: take the slices from this reservation", values)
    text("valid_until", None, "tpu: give up a request that waited for 30m, 6h, 2d", values)
    text("image", None, "gke: container image; tpu: runtime version; sky: machine image", values)
    text("context", None, "gke: context of kubectl; default: the current one", values)
    text("queue", None, "gke: LocalQueue of Kueue; slurm: partition", values)
    text("priority", None, "gke: WorkloadPriorityClass; slurm: QOS", values)
    text("time", None, "slurm: time limit, such as 12:00:00", values)
    absl_flags.DEFINE_boolean("dry_run", False, "print what would be created, and stop", values)
    forget = "down: drop the record although what it names is not found"
    absl_flags.DEFINE_boolean("forget", False, forget, values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: done; 2: bad input; 42: stopped while it watched, run it again; else that of the
    cluster's command."""
    values, argv = make_flags(), list(argv)
    end = argv.index("--") if "--" in argv else len(argv)
    overrides = flags.parse(values, argv[:end], __doc__, positional="action")
    more = argv[end + 1 :]
    if values.action not in ACTIONS:
        raise BadInput(f"action={values.action} is unknown; use one of {', '.join(ACTIONS)}")
    folder = Path(values.records)
    if more and values.action != "up":
        raise BadInput(f"{more[0]} follows --, which only `cluster up` reads; drop it")
    with bad_input():
        if values.action == "up":
            provider = provider_named(values.on)
            given = _given(values, provider, overrides)
            given["flags"] = _checked(more, values)
            return up(folder, provider, values, given)
        if values.action == "status" and not values.name:
            return _list(folder)
        found = _record(folder, values)
        provider, request = PROVIDERS[found.on], found.request
        if values.action == "status":
            print(f"{found.name} on {found.on}, id {found.id}, created {found.created}")
            print(*provider.state(request, found), sep="\n")
        elif values.dry_run:
            print(f"would delete what {found.file} names:", *found.resources, sep="\n  ")
        else:
            _delete(provider, request, found, values.forget)
            _say(f"{found.name} is down")
    return DONE


def _delete(provider: Provider, request: Request, found: Record, forget: bool = False) -> None:
    """Deletes a cluster and its record. ValueError, and the record stays, if something of it is not
    found, unless `forget`: it may run where these credentials do not look."""
    lost = provider.delete(request, found, _say)
    if lost and not forget:
        raise ValueError(
            f"{'; '.join(lost)}: it may run elsewhere, so {found.file} keeps it; if it is gone, "
            f"isoflop cluster down --name={found.name} --forget"
        )
    found.remove()


def up(folder: Path, provider: Provider, values: Any, given: dict[str, Any]) -> int:
    """Creates a cluster, or what is missing of one that has a record, and stays with it while its
    provider needs that. Raises ValueError."""
    name = check_name(values.name or "")
    found, packed = record.read(folder, name), None
    new = found is None
    if found:
        _require_same(found, values.on, given)
        _say(f"{name} exists since {found.created}; what is missing of it is created")
    else:
        packed = bundle.archive() if provider.CARRIES_CODE else None
        code = {"code": bundle.place(given["workdir"], packed)} if packed else {}
        found = Record(folder, name, secrets.token_hex(3), values.on, given | code)
    request = found.request
    provider.check(request)
    if new and not values.dry_run:
        found.given |= provider.resolve(request)
        request = found.request
    plan = provider.plan(request)
    print(f"cluster {name} (id {request.id}) on {values.on}:", *plan.lines, sep="\n  ")
    if values.dry_run:
        for file, content in plan.documents.items():
            print(f"--- {file}\n{content}", end="")
        return DONE
    provider.preflight(request)
    if packed:
        bundle.upload(request.code, packed)
    if new:
        found.resources = [dict(resource) for resource in plan.resources]
        found.save()
    with _said_what_remains(found):
        provider.create(request, found, _say)
        return _follow(provider, request, found)


def _follow(provider: Provider, request: Request, found: Record) -> int:
    """Stays with the cluster until its command has ended; then deletes what it created."""
    with Interrupt() as interrupt:
        code = provider.follow(request, found, _say, lambda: interrupt.count > 0)
    if code is None:
        _say(
            "stopped watching; the machines stay. The same command watches on; "
            f"isoflop cluster down --name={found.name} deletes them"
        )
        return PREEMPTED
    if provider.ENDS:
        _say(f"the command ended with {code}")
        _delete(provider, request, found)
    else:
        _say(
            f"isoflop cluster status --name={found.name} shows it; "
            f"isoflop cluster down --name={found.name} deletes it"
        )
    return code


@contextlib.contextmanager
def _said_what_remains(found: Record):
    """Adds to an error how to delete what was created before it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{error}; isoflop cluster down --name={found.name} deletes what was created"
        ) from error


def _given(values: Any, provider: Provider, overrides: Mapping[str, str]) -> dict[str, Any]:
    """The options of `up` as the record keeps them; ValueError for one that is missing, or that the
    provider does not read."""
    on = values.on
    for flag in CHOICES:
        if values[flag].present and flag not in provider.USES:
            raise ValueError(f"{flag}={values[flag].value} means nothing with on={on}; drop it")
    missing = [flag for flag in ("name", *provider.NEEDS) if not values[flag].value]
    if missing:
        raise ValueError(f"--{missing[0]} is not given; on={on} needs --{' and --'.join(missing)}")
    if values.job not in provider.JOBS:
        known = ", ".join(provider.JOBS)
        raise ValueError(f"job={values.job} is not offered with on={on}; use one of {known}")
    if values.job != "sweep" and not values.config:
        raise ValueError(f"job={values.job} needs something to run; add --config=…")
    shared = values.workdir.startswith(("gs://", "s3://"))
    if on != "slurm" and not shared:
        raise ValueError(
            f"workdir={values.workdir} is on this machine; give a folder that all machines reach, "
            "gs://… or s3://…"
        )
    given = {flag: values[flag].value for flag in CHOICES if values[flag].value}
    imports = overrides.get("imports", ())
    if values.config:
        given["config"] = bundle.inside(values.config, "config")
    given["imports"] = [bundle.inside(file, "import") for file in imports]
    given["overrides"] = [[key, str(v)] for key, v in overrides.items() if key != "imports"]
    if given["overrides"] and not values.config:
        raise ValueError(f"config.{given['overrides'][0][0]} is given without --config=…")
    return given


# Flags of the command that `up` sets itself.
SET = {
    *("config", "workdir", "import", "on", "address", "part"),
    *("coordinator", "processes", "process"),
}


def _checked(more: Sequence[str], values: Any) -> list[str]:
    """The flags after --, once the command that the machines run has read them; BadInput for those
    that it does not know, or that `up` sets."""
    if not more:
        return []
    if not values.config:
        raise BadInput(f"{more[0]} follows --, for the command of --config=…, which is not given")
    verb = "train" if values.job == "train" else "sweep"
    read = importlib.import_module(f"launch.verbs.models.{verb}").make_flags()
    try:
        required = [f"--config={values.config}", "--workdir=."]  # a bucket would be asked
        flags.parse(read, [*required, *more], "")
    except BadInput as error:
        raise BadInput(f"after --, for isoflop {verb}: {error}") from None
    names = [part.lstrip("-").partition("=")[0] for part in more]
    if taken := next((one for one in names if one in SET or one.startswith("config.")), ""):
        raise BadInput(f"--{taken} follows --; give it before, or drop it: cluster up passes it on")
    if verb == "sweep" and read.slice:
        with bad_input():
            ray_slices.type_of(read.slice)
    return list(more)


def _require_same(found: Record, on: str, given: Mapping[str, Any]) -> None:
    """ValueError, with the first difference, if a cluster of this name was made otherwise."""
    there = {"on": found.on, **found.given}
    kept = ("code", "context", "namespace", "project")  # found by `up`
    here = {"on": on} | {key: found.given[key] for key in kept if key in found.given} | given
    for key in (*there, *here):
        if there.get(key) != here.get(key):
            raise ValueError(
                f"name={found.name} is a cluster with {key}={there.get(key)}, not "
                f"{here.get(key)}; choose another --name, or isoflop cluster down "
                f"--name={found.name} first"
            )


def _record(folder: Path, values: Any) -> Record:
    """The record that status and down need; ValueError without one."""
    name = check_name(values.name or "") if values.name else None
    if name is None:
        raise ValueError(f"--name is not given; {_names(folder)}")
    found = record.read(folder, name)
    if found is None:
        raise ValueError(f"name={name} has no record in records={folder}; {_names(folder)}")
    if values.on and values.on != found.on:
        raise ValueError(f"on={values.on}: {name} is on {found.on}; drop --on")
    if found.on not in PROVIDERS:
        raise ValueError(f"{found.file} names the provider {found.on}, which this version lacks")
    return found


def _names(folder: Path) -> str:
    names = record.known(folder)
    return f"use one of {', '.join(names)}" if names else "there are no clusters"


def _list(folder: Path) -> int:
    """Prints the clusters that have a record; asks nobody."""
    for name in record.known(folder):
        found = record.read(folder, name)
        print(f"{name}: on {found.on}, id {found.id}, created {found.created}")
    if not record.known(folder):
        print(f"no clusters in {folder}")
    return DONE


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
