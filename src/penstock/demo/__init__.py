"""The users service that the documentation teaches from, and the demo that runs it."""
