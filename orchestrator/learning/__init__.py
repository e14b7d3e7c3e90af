"""Lets a stage learn from judged queries, and judges what came of it."""
