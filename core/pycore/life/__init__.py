"""One container's life, and what goes on beside it: its programs, its health, what is to be done later."""
