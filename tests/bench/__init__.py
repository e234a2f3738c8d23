"""This folder measures the project's speed against its peers: `make bench`, or a file at a time."""
