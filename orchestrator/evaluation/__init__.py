"""How good a pipeline is, how fast, what it costs, and which of its stages earn their place."""
