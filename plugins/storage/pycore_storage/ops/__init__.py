"""What the storage plugins do to the host, and inside: operations, without anything heavy."""
