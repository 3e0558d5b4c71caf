"""Command line of a clone: ``python run_sim.py --help``; once installed, ``sandbox-society``."""

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - the line that an older Python prints
        found = "%d.%d" % sys.version_info[:2]  # noqa: UP031 - so that any Python 3 reads it
        sys.exit("error: needs Python 3.11 or newer; found " + found + " (" + sys.executable + ")")
    try:
        from sandbox.cli.main import main
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}; install the requirements first: pip install -e .")
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    main()
