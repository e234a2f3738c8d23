"""Writes the golden manifests and scripts, and the schemas that they are validated with.

python -m tests.golden.cluster.make files
    the documents of cases.py
python -m tests.golden.cluster.make schemas FOLDER
    schemas.json, from clones of kubernetes-sigs/jobset and kueue and ray-project/kuberay in FOLDER
python tests/golden/cluster/make.py sky
    sky.json; SkyPilot reads every sky-*/*.yaml. In an environment with SkyPilot, without isoflop.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent

# kind -> the clone, the file of its definition, the version
DEFINITIONS = {
    "JobSet": ("jobset", "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml", "v1alpha2"),
    "RayCluster": ("kuberay", "ray-operator/config/crd/bases/ray.io_rayclusters.yaml", "v1"),
    **{
        kind: (
            "kueue",
            f"config/components/crd/bases/kueue.x-k8s.io_{kind.lower()}s.yaml",
            "v1beta1",
        )
        for kind in ("ClusterQueue", "LocalQueue", "ResourceFlavor")
    },
}


def write_files() -> None:
    """One folder a case; files that no case has any more are deleted."""
    from tests.golden.cluster.cases import CASES, files

    for case in CASES:
        folder, made = FOLDER / case, files(case)
        folder.mkdir(exist_ok=True)
        for name, text in made.items():
            (folder / name).write_text(text)
        for left in set(folder.iterdir()) - {folder / name for name in made}:
            left.unlink()


def strict(node: Any) -> Any:
    """A schema of Kubernetes as JSON Schema that refuses unknown keys, without descriptions."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    dropped = {"description", "format", "default"}
    kept = {
        key: {name: strict(value) for name, value in node[key].items()}
        if key == "properties"
        else strict(node[key])
        for key in node
        if key not in dropped and not key.startswith("x-kubernetes")
    }
    open_ = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    if "properties" in node and not open_:
        kept["additionalProperties"] = False
    return kept


def shared(node: Any, known: dict[str, Any]) -> Any:
    """The schema with large parts that are the same moved to `known` and referred to."""
    if isinstance(node, list):
        return [shared(item, known) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: shared(value, known) for key, value in node.items()}
    text = json.dumps(found, sort_keys=True)
    if len(text) < 300 or not ({"type", "properties"} & set(found)):
        return found
    name = hashlib.sha256(text.encode()).hexdigest()[:10]
    known[name] = found
    return {"$ref": f"#/$defs/{name}"}


def write_schemas(clones: Path) -> None:
    """schemas.json: a schema for each kind, and where each is from."""
    kinds, defs, sources = {}, {}, {}
    for kind, (clone, path, version) in DEFINITIONS.items():
        git = ["git", "-C", str(clones / clone)]
        text = subprocess.run(
            [*git, "show", f"HEAD:{path}"], capture_output=True, check=True
        ).stdout
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, check=True).stdout
        versions = {found["name"]: found for found in yaml.safe_load(text)["spec"]["versions"]}
        schema = strict(versions[version]["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        schema["properties"].pop("status", None)
        sources[kind] = f"{clone} {commit.decode().strip()} {path} {version}"
        if kind == "JobSet":  # holds the specification of a batch/v1 Job
            spec = schema["properties"]["spec"]["properties"]["replicatedJobs"]["items"]
            job = spec["properties"]["template"]["properties"]["spec"]
            kinds["Job"] = shared(_job(job), defs)
        kinds[kind] = shared(schema, defs)
    licence = "Apache License 2.0; descriptions and defaults are left out, unknown keys refused"
    content = {"licence": licence, "sources": sources, "kinds": kinds, "$defs": defs}
    (FOLDER / "schemas.json").write_text(json.dumps(content, sort_keys=True) + "\n")


def _job(spec: dict[str, Any]) -> dict[str, Any]:
    properties = {
        "apiVersion": {"const": "batch/v1"},
        "kind": {"const": "Job"},
        "metadata": {"type": "object"},
        "spec": spec,
    }
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "required": list(properties),
    }


def write_sky() -> None:
    """sky.json: SkyPilot's own schema of a task. Every golden task is read by SkyPilot itself."""
    import sky
    from sky.utils import schemas

    source = f"SkyPilot {sky.__version__}, sky.utils.schemas.get_task_schema; Apache License 2.0"
    content = {"source": source, "task": schemas.get_task_schema()}
    content["resources"] = schemas.get_resources_schema()
    (FOLDER / "sky.json").write_text(json.dumps(content, sort_keys=True) + "\n")
    for file in sorted(FOLDER.glob("sky-*/*.yaml")):
        task = yaml.safe_load(file.read_text())
        task["workdir"] = "."
        read = sky.Task.from_yaml_config(task)
        print(file.relative_to(FOLDER), *(str(found) for found in read.resources))


if __name__ == "__main__":
    if sys.argv[1:] == ["files"]:
        write_files()
    elif sys.argv[1:2] == ["schemas"] and len(sys.argv) == 3:
        write_schemas(Path(sys.argv[2]))
    elif sys.argv[1:] == ["sky"]:
        write_sky()
    else:
        sys.exit(__doc__)
