"""Images as files: layouts, archives of them, and what Docker saves; read and written."""
