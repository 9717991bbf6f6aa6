"""Models come in: unpacked safely, shown, trusted, given a card, and checked before they may read."""
