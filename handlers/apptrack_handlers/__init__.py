"""The handlers that ship with apptrack-ingest; they use its public API alone."""
