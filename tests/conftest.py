"""What holds for every test."""

import os

os.environ["TERM"] = "xterm"
"""A dumb terminal, as many CI services have, knows no colours and no width."""
