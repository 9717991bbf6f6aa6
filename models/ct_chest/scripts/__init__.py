"""Training of this bundle from generated phantoms; inference needs none of it."""
