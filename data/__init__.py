"""This file marks the room that turns text into batches: a pure function of (dataset, seed, step)."""
