"""Processes that serve: sockets, connections, one process or several workers."""
