"""`python -m hf_tasks`, so that `accelerate launch -m hf_tasks` works."""

from hf_tasks.cli import main

main()
