"""The HTTP server of llama.cpp: `python tests/llama_server.py FILE.gguf PORT`."""

from __future__ import annotations

import sys
import time


def main() -> None:
    """Serve until the process is ended."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = sys.argv[1]
    settings.hostnames = ["127.0.0.1"]
    settings.port = int(sys.argv[2])
    settings.n_parallel = 4
    settings.n_ctx = 4 * 2048
    for threads in (settings.cpuparams, settings.cpuparams_batch):
        threads.n_threads, threads.poll = 1, 0  # two of them wait for each other
    server = xllamacpp.Server(settings)
    while server.listening_address:
        time.sleep(60)


if __name__ == "__main__":
    main()
