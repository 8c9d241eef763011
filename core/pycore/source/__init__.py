"""From a file or flags to a checked :class:`pycore.spec.App`, with every problem in words."""
