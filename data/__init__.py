"""This file marks the room that turns text into batches."""
