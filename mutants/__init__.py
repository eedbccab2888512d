"""Planted faults: each must turn a named test red, or that test is no test."""
