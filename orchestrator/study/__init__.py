"""Evaluations side by side, read from their folders: what is best, by how much, whether beyond chance, at what cost.

Nothing here runs a pipeline or knows how a page looks: `folders` reads, the others compare, and `report.study` shows.
"""
