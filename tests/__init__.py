"""This file makes `tests` importable, so that spawned workers find the test doubles by name."""
