"""The parts of ``tests/bench/ingest.py``; tests/bench/README.md says what it measures and why so."""
