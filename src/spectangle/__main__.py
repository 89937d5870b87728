"""``python -m spectangle``: the command of the package."""

from spectangle.commands.main import main

if __name__ == "__main__":
    main()
