"""``python -m nabla``."""

from nabla.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
