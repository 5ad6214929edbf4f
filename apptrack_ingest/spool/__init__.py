"""Durable keeping: the contract, and the SQLite database behind it."""
