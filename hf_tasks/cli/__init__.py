"""The program `hf-tasks`; heavy libraries are imported by the command that needs them."""

from hf_tasks.cli.program import app, main

__all__ = ["app", "main"]
