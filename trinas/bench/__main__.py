"""``python -m trinas.bench``: see `trinas.bench.command`."""

from trinas.bench.command import main

if __name__ == "__main__":
    main()
