"""The application: builds every part, opens the listeners, and closes all of it in order."""

from proxy.app.app import App

__all__ = ["App"]
