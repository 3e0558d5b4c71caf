"""The child process of the backend `llama_cpp`: serves a GGUF file by llama.cpp's HTTP server.

It is run as a program. It imports nothing of this project, writes its address to standard output
once the model is loaded, and ends when its standard input does: with its parent, however that ends.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main(file: str, options: str) -> None:
    """Serve until standard input ends.

    Args:
        file: the model.
        options: as JSON: `threads`; `slots`, replies written at once; `context`, tokens of each.
    """
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what llama.cpp prints belongs in the log
    import xllamacpp

    given: dict[str, Any] = json.loads(options)
    settings = xllamacpp.CommonParams()
    settings.model.path = file
    settings.hostnames = ["127.0.0.1"]
    settings.port = 0  # one that is free
    settings.verbosity = 1  # errors
    settings.ui = False
    settings.cors_origins = ""  # no page in a browser may ask it
    settings.cache_ram_mib = 1024  # of prompts, for the next calls of an episode
    settings.n_parallel = given["slots"]
    settings.n_ctx = given["slots"] * given["context"]
    for threads in (settings.cpuparams, settings.cpuparams_batch):
        threads.n_threads = given["threads"]
        threads.poll = 0  # waiting threads leave their core to others
    server = xllamacpp.Server(settings)
    print(server.listening_address, file=answer, flush=True)
    sys.stdin.buffer.read()
    os._exit(0)  # at once, whatever is being written


if __name__ == "__main__":
    main(*sys.argv[1:])
