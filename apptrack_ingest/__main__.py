"""`python -m apptrack_ingest`: the command line."""


def main() -> None:
    """Runs the command line. Imported here only: the parser's processes import this module and need none of it."""
    from apptrack_ingest.cli import main as commands

    commands()


if __name__ == "__main__":
    main()
