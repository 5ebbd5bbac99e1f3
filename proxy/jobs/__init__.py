"""Jobs: work on clips that nobody waits for, and that survives every process."""
