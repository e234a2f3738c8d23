"""This room fits scaling laws to tables of finished runs: numpy and scipy only, so that any CSV
will do.
"""
