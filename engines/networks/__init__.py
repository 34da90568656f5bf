"""The networks, their table and their model files."""
