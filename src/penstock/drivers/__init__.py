"""What is private to a driver or a server, below the pool."""
