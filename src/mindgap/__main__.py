"""`python -m mindgap`, where the package is on the path and its command is not installed."""

from mindgap.stages.cli import main

main()
