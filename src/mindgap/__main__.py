"""`python -m mindgap`, where the package is on the path and its command is not installed."""

from mindgap.cli import main

main()
