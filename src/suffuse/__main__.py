"""`python -m suffuse` is `suffuse`."""

from suffuse.cli import main

if __name__ == "__main__":
    main()
