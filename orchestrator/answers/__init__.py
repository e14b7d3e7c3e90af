"""What is told of an answer: its trace, the way of every document, spans."""
