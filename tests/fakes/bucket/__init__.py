"""A bucket that misbehaves on request: R2's rules and every fault, in front of a real S3 server."""

from tests.fakes.bucket.faults import Fault
from tests.fakes.bucket.rules import R2Rules
from tests.fakes.bucket.server import FaultyBucket, Seen

__all__ = ["Fault", "FaultyBucket", "R2Rules", "Seen"]
