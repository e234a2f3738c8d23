"""Reads text, tokenizes it and makes training batches."""
