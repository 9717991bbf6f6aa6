"""Parts of the bench of inference: what is read, and the ways to read it."""
