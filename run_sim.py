"""Command line of a clone: ``python run_sim.py --help``; once installed, ``sandbox-society``."""

import sys

if __name__ == "__main__":
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
