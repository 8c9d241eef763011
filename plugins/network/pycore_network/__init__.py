"""Network: how a container is connected, or not."""
