"""Checks from outside what a WireGuard must do, for any implementation.

It knows nothing about the implementation under test. It configures the device with stock `wg` and
plays all other hosts itself, with its own oracle for every message.
"""
