"""Parts of the bench of encoding."""
