"""Tunnels for HTTP libraries. Each module imports only the library that it is named after."""
