"""Measures what stages cost on this machine, for `plan` and `check`."""
