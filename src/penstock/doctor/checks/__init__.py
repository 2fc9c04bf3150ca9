"""Every check, by what it looks at."""
