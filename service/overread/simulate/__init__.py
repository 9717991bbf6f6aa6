"""A hospital in a box: phantoms with known truth, a scanner, a PACS that misbehaves on request."""
