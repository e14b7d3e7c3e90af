"""What is computed once for a text and kept: append-only columns, found by the key of the text."""
