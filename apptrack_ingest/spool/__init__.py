"""Durable keeping: the contract, and the databases behind it, SQLite and PostgreSQL."""
