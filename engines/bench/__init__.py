"""How fast the program is on this machine: its stages, backends and models."""
