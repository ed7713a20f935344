"""`python -m failover` is `chainctl`."""

from failover.cli import main

main()
