"""Measurements against other WireGuards, all in one run."""
