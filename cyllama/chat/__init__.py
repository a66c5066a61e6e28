"""Messages to prompt."""

from .template import Message, render

__all__ = ["Message", "render"]
