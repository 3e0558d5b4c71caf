"""``python -m sandbox VERB``: the command line, for launchers such as ``accelerate launch -m``."""

from sandbox.cli.main import main

if __name__ == "__main__":
    main()
