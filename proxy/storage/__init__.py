"""Where owned bytes live: the bucket and this machine's disk."""
