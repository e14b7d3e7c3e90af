"""Small things kept on disk: values by key, written behind the answer's back, and records of evaluations."""
