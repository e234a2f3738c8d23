"""Makes `tests` a package, so that spawned workers can import the test doubles."""
