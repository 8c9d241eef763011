"""Linux as pycore uses it: every system call through ctypes, argument types declared once."""
