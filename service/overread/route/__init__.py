"""Studies meet models, and every choice is explained."""
