"""A hospital in a box: generated patients, a scanner that sends, and a PACS that misbehaves on request."""
