"""What running containers do and use, for somebody who looks."""
