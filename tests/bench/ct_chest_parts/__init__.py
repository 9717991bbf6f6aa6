"""What tests/bench/ct_chest.py is made of, and what a test holds to the card's floors."""
