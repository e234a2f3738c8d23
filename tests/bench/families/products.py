"""Multiplies matrices as many times as have the FLOPs of a network of networks.py.

JAX_PLATFORMS=cpu python -m tests.bench.families.products lstm
"""

import sys

from tests.bench.families.networks import NETWORKS
from tests.bench.race import contestant, products

if __name__ == "__main__":
    network = NETWORKS[sys.argv[1]]
    contestant.serve(network, products.prepare(network)[0])
