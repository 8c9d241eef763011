"""Between a client's terminal or pipes and a container's."""
