"""The published ways to count training FLOPs."""

CONVENTIONS = ("6nd", "kaplan", "chinchilla", "palm")
"""`flops` of every family gives each of them."""
