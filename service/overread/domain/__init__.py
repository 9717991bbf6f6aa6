"""The ground: what the rooms speak of. numpy and the standard library only."""
