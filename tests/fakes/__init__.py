"""Stand-ins for the services outside, which can be told to misbehave."""
