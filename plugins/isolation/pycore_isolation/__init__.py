"""Isolation: what a container may see, do and use."""
