"""What the telemetry says, in the words of others; each file needs the extra of its name."""
