"""Which sharding is best: the search space, the search, and its explanation in words."""
