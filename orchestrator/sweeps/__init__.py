"""What Hydra calls for a run or every job of a sweep, how far a sweep is, and how it ends."""
