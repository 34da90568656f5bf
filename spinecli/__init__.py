"""The terminal of ``spine``: parse, call one engine, show its records."""
