"""What a WireGuard must do, checked from outside against any implementation.

It knows nothing of the implementation under test: it configures the device by stock `wg` and
plays all other hosts itself, with an oracle of its own for every message.
"""
