"""`runtara`, and `python -m runtara.cli`."""

import sys


def main() -> None:
    """Run the command line; without its extra, say which pip line is missing."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        sys.stderr.write("error: the command line needs the extra 'cli': pip install 'runtara[cli]'\n")
        raise SystemExit(5) from None
    from .app import app

    app()


if __name__ == "__main__":
    main()
