"""Ed25519 in plain Python, after RFC 8032 §5.1, so that the real one is not its own witness.

Belongs here: keys, signatures and their check, from the RFC's formulas and nothing else. Must not
know: webhooks. Slow (milliseconds), and not of constant time: for tests only.
"""

import hashlib
from functools import cache

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)

# Extended homogeneous coordinates (X, Y, Z, T), x = X/Z, y = Y/Z, x * y = T/Z (§5.1.4).
_Point = tuple[int, int, int, int]
_NEUTRAL: _Point = (0, 1, 1, 0)


def public_key(secret: bytes) -> bytes:
    """Return the public key of a 32-byte secret (§5.1.5)."""
    scalar, _ = _expand(secret)
    return _encode(_multiply(scalar, _base()))


def sign(secret: bytes, message: bytes) -> bytes:
    """Return the 64-byte signature of a message (§5.1.6)."""
    scalar, prefix = _expand(secret)
    nonce = _digest(prefix, message)
    point = _encode(_multiply(nonce, _base()))
    challenge = _digest(point, _encode(_multiply(scalar, _base())), message)
    answer = (nonce + challenge * scalar) % _ORDER
    return point + answer.to_bytes(32, "little")


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether a signature fits (§5.1.7); the equation without its cofactor."""
    key, point = _decode(public), _decode(signature[:32])
    answer = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or key is None or point is None or answer >= _ORDER:
        return False
    challenge = _digest(signature[:32], public, message)
    left, right = _multiply(answer, _base()), _add(point, _multiply(challenge, key))
    return _encode(left) == _encode(right)


def _digest(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % _ORDER


def _expand(secret: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(secret).digest()
    scalar = int.from_bytes(digest[:32], "little")
    scalar &= (1 << 254) - 8
    return scalar | 1 << 254, digest[32:]


def _add(a: _Point, b: _Point) -> _Point:
    e1 = (a[1] - a[0]) * (b[1] - b[0]) % _P
    e2 = (a[1] + a[0]) * (b[1] + b[0]) % _P
    e3 = 2 * a[3] * b[3] * _D % _P
    e4 = 2 * a[2] * b[2] % _P
    e, f, g, h = e2 - e1, e4 - e3, e4 + e3, e2 + e1
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiply(scalar: int, point: _Point) -> _Point:
    total = _NEUTRAL
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total


def _encode(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decode(data: bytes) -> _Point | None:
    """Return the point that 32 bytes stand for, if they stand for one (§5.1.3)."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if len(data) != 32 or y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    x = _P - x if x & 1 != sign else x
    return x, y, 1, x * y % _P


@cache
def _base() -> _Point:
    """The base point: y = 4/5, x even (§5.1)."""
    point = _decode((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    if point is None:
        raise AssertionError("4/5 is no point of the curve")
    return point
