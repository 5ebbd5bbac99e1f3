"""The database of generations."""
