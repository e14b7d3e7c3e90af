"""What lies under the storage root: listed, pruned, cleared."""
