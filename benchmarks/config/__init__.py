"""What decides a run, and what its names stand for."""
