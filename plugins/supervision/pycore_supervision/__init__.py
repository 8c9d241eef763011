"""Restart policies, health checks and the container's init."""
