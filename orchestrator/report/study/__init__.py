"""A report of evaluations as one page for a browser, as Markdown and as CSV; each picture is a file of its own."""
