"""What is kept of containers: their records and what happened to them."""
