"""``python -m bezoar`` is the command line."""

from bezoar.cli import main

main()
