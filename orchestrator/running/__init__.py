"""Runs a stack for one question or many: deadline, passages, kept scores and results, one promise a file."""
