"""Import and call of a user's own code."""
