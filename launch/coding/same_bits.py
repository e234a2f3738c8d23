"""What must be equal on two machines for a model to compute the same bits on both."""

import os
import platform
import re
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")
# Instruction sets that compilers of numerical code choose by: x86 and ARM.
SETS = re.compile(r"(sse|ssse|avx|fma|f16c|amx|bmi|asimd|sve|sme|bf16|i8mm|fp|neon)\w*")
MODEL = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")  # lines of cpuinfo
WORDS = {
    "computes": "arithmetic", "jax": "jax", "jaxlib": "jaxlib", "backend": "backend",
    "device": "device", "cpu": "CPU", "sets": "the instruction sets of the CPU",
    "precision": "matmul precision", "flags": "XLA_FLAGS",
}  # fmt: skip


def here(counted: bool) -> dict[str, Any]:
    """This machine, for a trained model or a counted one. Counts need only additions and
    multiplications in float64, which IEEE 754 defines on every machine."""
    if counted:
        return {"computes": "numpy float64"}
    import jax
    import jaxlib

    device = jax.devices()[0]
    return {
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "backend": device.platform,
        "device": device.device_kind,
        "precision": str(jax.config.jax_default_matmul_precision),
        "flags": os.environ.get("XLA_FLAGS", ""),
        **_cpu(),
    }


def _cpu() -> dict[str, str]:
    """The model of the CPU, and its instruction sets where the system names them."""
    about: dict[str, str] = {}
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text(errors="replace").split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            about.setdefault(name.strip(), value.strip())
    names = [about[name] for name in MODEL if name in about]
    flags = about.get("flags", about.get("Features", "")).split()
    found = {"cpu": " ".join([platform.machine(), *(names or [platform.processor()])])}
    if sets := sorted(flag for flag in flags if SETS.fullmatch(flag)):
        found["sets"] = " ".join(sets)
    return found


def differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    """What differs, as words: "jax 0.10.2 there, 0.11.0 here"; "" if nothing does."""
    found = []
    for name in sorted(there.keys() | here.keys(), key=lambda name: [*WORDS, name].index(name)):
        one, other = there.get(name, "unknown"), here.get(name, "unknown")
        if one == other:
            continue
        if name == "sets":
            only = sorted(set(str(one).split()) ^ set(str(other).split()))
            found.append(f"{WORDS[name]} differ in {', '.join(only[:5])}")
        else:
            found.append(f"{WORDS.get(name, name)} {one} there, {other} here")
    return "; ".join(found)
