"""When: the clock, claims under a lease, and patience."""
