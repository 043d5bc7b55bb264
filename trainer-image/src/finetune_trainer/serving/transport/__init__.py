"""What clients send, within limits: connections, and bodies."""
