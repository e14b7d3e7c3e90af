"""Documents, queries and judgements: found, read, cut into chunks, kept in the store."""
