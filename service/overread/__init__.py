"""A background second reader for a hospital's PACS."""

__version__ = "0.1.0"
