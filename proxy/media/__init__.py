"""What the bytes are: digests and the ISO media container."""
