"""A series becomes a volume; what is not one regular stack is refused, never guessed."""
