"""Sockets whose traffic goes through a tunnel."""
