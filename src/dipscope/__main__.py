"""`python -m dipscope`."""

from dipscope.cli import main

if __name__ == "__main__":
    main()
