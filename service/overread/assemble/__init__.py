"""Instances become studies: quiet time says when to ask, the census answers."""
