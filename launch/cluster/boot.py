"""The shell scripts with which a bare machine installs isoflop and takes its part in a cluster."""

import shlex

from launch.cluster.request import Request

UV = "https://astral.sh/uv/install.sh"  # installs Python 3.12 too; TPU VMs have 3.10
FOLDER = "/opt/isoflop"


def extras(request: Request) -> str:
    """The extras of isoflop that the machines need."""
    device = "tpu" if request.accelerator and request.accelerator.tpu else "gpu"
    bucket = {"gs": "gcs", "s3": "s3"}.get(request.workdir.partition("://")[0])
    ray = "" if request.job == "train" else "ray"
    return ",".join(filter(None, (device, ray, bucket)))


def install(request: Request, source: str) -> str:
    """Installs the checkout `source`, a folder, with uv. Tries again until it works. A machine that
    comes later installs the same versions: Ray joins no other."""
    before = f" --exclude-newer {request.created}" if request.created else ""
    return f"""\
export PATH="$HOME/.local/bin:$PATH" UV_PYTHON_PREFERENCE=only-managed
until command -v uv >/dev/null || curl -LsSf {UV} | sh; do sleep 10; done
until [ -x .venv/bin/isoflop ]; do
  uv venv --quiet --clear --python 3.12 .venv &&
    uv pip install --quiet{before} --python .venv/bin/python \\
      --editable '{source}[{extras(request)}]' ||
    {{ rm -rf .venv; sleep 10; }}
done
export PATH="$PWD/.venv/bin:$PATH"
"""


def download(request: Request) -> str:
    """Fetches the archive of the checkout into the folder `code`."""
    copy = "gcloud storage cp" if request.code.startswith("gs://") else "aws s3 cp"
    return f"""\
until [ -d code ]; do
  rm -rf part && mkdir part && {copy} {shlex.quote(request.code)} code.tar.gz &&
    tar -xzf code.tar.gz -C part && mv part code || sleep 10
done
"""


DEVICES = ("platform", "slice", "gpus", "cores")
"""The flags of a sweep that say on which devices its trials run."""


def driver(request: Request, address: str = "auto") -> list[str]:
    """What the head runs: the sweep on Ray, or nothing without a config. The head may be alone when
    the sweep starts, so it is told what the machines to come have, and to wait for them."""
    if not request.config:
        return []
    given = {flag.lstrip("-").partition("=")[0] for flag in request.flags}
    told = [] if given & set(DEVICES) else [f"--platform={request.platform}"]
    return request.command("sweep", "--on=ray", f"--address={address}", "--wait_for_nodes", *told)


def node(request: Request, role: str, command: list[str], *more: str) -> str:
    """The command with which a machine takes its part, as shell text. `more` are flags of it."""
    given = [role, f"--home={request.home}", *more, *(["--", *command] if command else [])]
    return "python -m launch.cluster.node " + shlex.join(given)


def tpu_vm(request: Request, index: int) -> str:
    """The startup script of the hosts of slice `index` of Cloud TPU. The first host of slice 0 is
    Ray's head; with --job=train all hosts run the same command."""
    metadata = "http://metadata.google.internal/computeMetadata/v1/instance/attributes"
    lines = [
        "#!/bin/bash",
        f"# {request.name}, slice {index}: written by isoflop cluster up.",
        "set -u",
        "export HOME=/root",
        f"mkdir -p {FOLDER} && cd {FOLDER} && exec >>log.txt 2>&1",
        download(request) + install(request, "code") + "cd code || exit",
        # Each host but one of a slice would be a second head if it took no answer for 0.
        f"until host=$(curl -sf -H Metadata-Flavor:Google {metadata}/agent-worker-number) && "
        '[ -n "$host" ]; do sleep 5; done'
        if request.accelerator.hosts > 1
        else "host=0",
    ]
    worker = node(request, "worker", [])
    if request.job == "train":
        lines.append("exec " + node(request, "train", request.command("train")))
    elif index == 0:
        main = node(request, "head", driver(request))
        lines.append(f'if [ "$host" = 0 ]; then exec {main}; else exec {worker}; fi')
    else:
        lines.append(f"exec {worker}")
    return "\n".join(lines) + "\n"
