"""Calls to somebody else's machine: deadline, retries, breaker, what HTTP answers mean, money."""
