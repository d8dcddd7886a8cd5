"""Servers that a command starts for itself, and the client that sends them requests and times the answers."""
