"""The backend for servers with OpenAI's HTTP API.

- `config`: the settings.
- `client`: HTTP: key, headers, proxies, certificates, redirects.
- `connection`: keep-alive connections for plain HTTP.
- `request`: the body of a request, and what a server's refusals teach about it.
- `constrain`: how replies are constrained to their shape, and what a server takes.
- `response`: what a response says.
- `models`: the list of models that a server has.
- `backend`: answers calls with one or more servers.
- `examine`: what a server can do, for `doctor`.
"""

from sandbox.backends.openai.backend import OpenAIBackend
from sandbox.backends.openai.config import OpenAIConfig

Config = OpenAIConfig
Backend = OpenAIBackend

__all__ = ["Backend", "Config", "OpenAIBackend", "OpenAIConfig"]
