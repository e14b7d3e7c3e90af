"""Goes on training networks that are trained already, on judged queries of the user's own domain."""
