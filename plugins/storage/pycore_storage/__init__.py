"""Storage: where a container's files come from, and where its own go."""
