"""What a user would use instead, each with its own defaults, on the same servers and the same rows."""
