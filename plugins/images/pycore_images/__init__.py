"""Images: where they come from, the store that keeps them, and how they leave it again."""
