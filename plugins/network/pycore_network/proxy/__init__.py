"""Ports that a socket of the supervisor serves, so that the host's own firewall is asked (``proxy = true``)."""
