"""What stages cost on this machine: rows by tokens and depth, as measured here or shipped."""
