"""What a pipeline is before it runs: stages in a graph, and what each declares beside `use`."""
