"""idibu's web services: a client for them, and a sandbox that plays idibu where the real one cannot be reached."""
