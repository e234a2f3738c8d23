"""Fits scaling laws to tables of finished runs. Numpy and scipy only, so that any CSV will do."""
