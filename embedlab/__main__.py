"""`python -m embedlab`."""

from embedlab.cli.main import main

main()
