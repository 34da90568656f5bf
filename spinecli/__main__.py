"""``python -m spinecli`` is ``spine``."""

from spinecli.app import main

main()
