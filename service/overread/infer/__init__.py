"""The model reads: one spawned process a warm model, fed by shared memory. torch and monai live behind this door."""
