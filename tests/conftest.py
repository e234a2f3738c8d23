"""This file keeps the tests on the CPU, whatever accelerator the machine has."""

import os

# Before anything imports jax. A test that needs more devices starts its own process.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
