"""The process that stays: an engine behind a socket, and how one makes way for the next."""
