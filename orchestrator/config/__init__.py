"""Where Hydra and OmegaConf are known: the words of the command line, the schema, config to objects."""
