"""Planted faults. Each must make named tests fail, or these tests do not test it."""
