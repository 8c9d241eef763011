"""What becomes of a container's output: the drivers `file`, `journald` and `none`."""
