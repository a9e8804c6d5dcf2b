"""``python -m bezoar`` is the command line."""

from bezoar.cli import app

app(prog_name="bezoar")
