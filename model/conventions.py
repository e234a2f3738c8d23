"""The published conventions for counting training FLOPs; every family's `flops` returns all."""

CONVENTIONS = ("6nd", "kaplan", "chinchilla", "palm")
