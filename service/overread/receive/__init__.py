"""Objects come in: who may, how full, and never an acknowledgement for bytes that a power cut could take."""
