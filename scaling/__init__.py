"""Fits scaling laws to finished runs, from isoflop or any CSV file, with numpy and scipy alone."""
