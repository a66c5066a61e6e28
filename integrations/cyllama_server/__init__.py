"""Models of `cyllama` behind the APIs of OpenAI and Anthropic.

`cyllama serve` runs it; `create_app` returns the same as an application for any server of ASGI, and `serving` runs one
in a thread. Needs the extra `cyllama[server]`.
"""

from .app import create_app
from .background import serving
from .settings import ServerSettings, read_settings

__all__ = ["ServerSettings", "create_app", "read_settings", "serving"]
