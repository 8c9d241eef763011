"""Launching: the spawner (parent of all containers), the child (inside), and what they say to each other."""
