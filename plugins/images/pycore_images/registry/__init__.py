"""Images in registries: the distribution protocol, version 2 (opencontainers/distribution-spec 1.1), both ways."""
