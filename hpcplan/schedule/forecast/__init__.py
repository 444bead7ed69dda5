"""When jobs will start: the queue's future from its present and its past."""
