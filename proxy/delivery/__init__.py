"""The corridor: locate, flights, fill, spool, send."""
