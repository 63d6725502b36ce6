"""`python -m embedlab`."""

from embedlab.app import main

main()
