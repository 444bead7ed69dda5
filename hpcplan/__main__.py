"""``python -m hpcplan`` is the ``hpcplan`` command."""

from hpcplan.cli import main

if __name__ == "__main__":
    main()
