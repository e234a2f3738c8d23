"""Makes `tests` importable, so that spawned workers find the test doubles by name."""
