"""A fake fal.media that does what it is told, also what no HTTP server should."""

from tests.fakes.fal.behaviour import Behaviour
from tests.fakes.fal.media import Clip, make_clip
from tests.fakes.fal.record import Request
from tests.fakes.fal.server import FakeFal

__all__ = ["Behaviour", "Clip", "FakeFal", "Request", "make_clip"]
