"""How long one step of one sharding takes and how much memory it needs: pure functions on NumPy arrays."""
