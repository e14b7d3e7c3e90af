"""Chooses a stack for a need, by rules, by what stages cost, and by what was measured of their quality."""
