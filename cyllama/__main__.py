"""`python -m cyllama` is the `cyllama` command."""

from .cli import main

main()
