"""Measures what stages cost on this machine, and keeps it for `plan` and `check`."""
