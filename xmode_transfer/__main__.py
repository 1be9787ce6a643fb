"""`python -m xmode_transfer` is the command line."""

from xmode_transfer.cli import main

if __name__ == "__main__":
    main()
