"""Fakes of kubectl, sbatch, squeue, scancel, srun, scontrol and ray, as programs on the PATH."""

import json
import os
import sys
from pathlib import Path

# Keeps objects in the file objects.json: `create` adds, `get` and `delete` find by kind and name.
# The file `current` names the current context, c without it; other contexts have their own files.
KUBECTL = """
import json, pathlib, sys
current = pathlib.Path("current")
context = current.read_text() if current.exists() else "c"
given = [part for part in sys.argv[1:] if part.startswith(("--context=", "--namespace="))]
argv = sys.argv[1 + len(given):]
asked = [part.partition("=")[2] for part in given if part.startswith("--context=")] or [context]
store = pathlib.Path("objects.json" if asked[0] == "c" else f"objects-{asked[0]}.json")
there = json.loads(store.read_text()) if store.exists() else {}
print(json.dumps(sys.argv[1:]), file=open("calls", "a"))
denied = pathlib.Path("denied")
if denied.exists():
    sys.exit(denied.read_text())
if argv[0] == "create":
    for made in json.loads(sys.stdin.read())["items"]:
        key = f"{made['kind']}/{made['metadata']['name']}"
        if key in there:
            sys.exit(f'Error from server (AlreadyExists): "{key}" already exists')
        there[key] = made
    if "--dry-run=server" not in argv:
        store.write_text(json.dumps(there))
elif argv[0] == "get" and "-l" in argv:
    print(*there, sep="\\n")
elif argv[0] == "get":
    made = there.get("/".join(argv[1:3]))
    print(json.dumps(made) if made else "", end="")
elif argv[0] == "delete":
    del there["/".join(argv[1:3])]
    store.write_text(json.dumps(there))
elif argv[0] == "config":
    print(context if argv[1] == "current-context" else "team", end="")
"""

# Job numbers count from 100; jobs.json has the name of each that has not ended.
SLURM = """
import json, pathlib, re, sys
store = pathlib.Path("jobs.json")
jobs = json.loads(store.read_text()) if store.exists() else {}
tool, argv = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
print(json.dumps([tool, *argv]), file=open("calls", "a"))
if tool == "sbatch":
    text = pathlib.Path(argv[-1]).read_text()
    number = str(100 + len(jobs))
    jobs[number] = re.search("job-name=(.*)", text)[1]
    pathlib.Path(f"script-{number}").write_text(argv[-1])
    print(f"{number};cluster")
elif tool == "squeue" and any(part.startswith("--name=") for part in argv):
    name = next(part for part in argv if part.startswith("--name=")).partition("=")[2]
    for number in (number for number in jobs if jobs[number] == name):
        print(number, pathlib.Path(f"script-{number}").read_text())
elif tool == "squeue":
    number = next(part for part in argv if part.startswith("--jobs=")).partition("=")[2]
    if number not in jobs:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print(jobs[number] if "--format=%j" in argv else f"{number} RUNNING 1:00 node1")
elif tool == "scancel":
    del jobs[argv[0]]
store.write_text(json.dumps(jobs))
"""


def install(folder: Path, **programs: str) -> Path:
    """Writes programs into a folder of their own; they start in `folder`. Returns that of them."""
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    for name, source in programs.items():
        file = place / name
        head = f"#!{sys.executable} -IS\nimport os\nos.chdir({str(folder)!r})\n"
        file.write_text(source if source.startswith("#!") else head + source)
        file.chmod(0o755)
    return place


def calls(folder: Path) -> list[list[str]]:
    """The arguments of all calls, in order."""
    file = folder / "calls"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def path_with(place: Path) -> str:
    return f"{place}{os.pathsep}{os.environ['PATH']}"
