"""Nothing but what fal signed just now is believed."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from proxy.errors import BadSignature
from proxy.security.fal_signature import Claims, UnknownSigner, message, verify
from tests.fakes import ed25519
from tests.fakes.webhooks import Signer

NOW = 1_800_000_000
BODY = b'{"status":"OK"}'
SIGNER = Signer(1)
FIELDS = SIGNER.headers(BODY, request_id="req-1", user_id="user|7", at=NOW)
NAMES = tuple(FIELDS)


def keys(*signers: Signer) -> tuple[Ed25519PublicKey, ...]:
    return tuple(Ed25519PublicKey.from_public_bytes(signer.public) for signer in signers)


def check(
    fields: dict[str, str], body: bytes = BODY, *, now: float = NOW, by: Signer = SIGNER
) -> None:
    claims = Claims.read(fields.items())
    verify(keys(by), claims, hashlib.sha256(body).digest(), now, 300.0)


# -- the witness: RFC 8032 §7.1 ---

VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701c"
            "f9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0"
            "f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f76098"
            "4dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c664"
            "31e0303dca179c138ac17ad9bef1177331a704"
        ),
    ),
]


@pytest.mark.parametrize(("secret", "public", "text", "signature"), VECTORS)
def test_the_witness_agrees_with_the_rfc(
    secret: str, public: str, text: str, signature: str
) -> None:
    assert ed25519.public_key(bytes.fromhex(secret)).hex() == public
    assert ed25519.sign(bytes.fromhex(secret), bytes.fromhex(text)).hex() == signature
    arguments = bytes.fromhex(public), bytes.fromhex(text)
    assert ed25519.verify(*arguments, bytes.fromhex(signature))
    assert not ed25519.verify(*arguments, bytes.fromhex(f"00{signature[2:]}"))
    assert not ed25519.verify(arguments[0], arguments[1] + b"x", bytes.fromhex(signature))


def test_the_fast_signer_is_the_same_signer() -> None:
    assert Signer(3).public == Signer(3, fast=True).public
    assert Signer(3).sign(b"text") == Signer(3, fast=True).sign(b"text")
    assert Signer(3).public != Signer(4).public


# -- what is signed ---


def test_the_signed_message_is_four_lines() -> None:
    claims = Claims.read(FIELDS.items())
    digest = hashlib.sha256(BODY)
    expected = f"req-1\nuser|7\n{NOW}\n{digest.hexdigest()}"
    assert message(claims, digest.digest()) == expected.encode()


def test_a_signed_webhook_is_believed() -> None:
    check(FIELDS)
    check({name.lower(): value for name, value in FIELDS.items()})
    check({**FIELDS, NAMES[3]: FIELDS[NAMES[3]].upper()})
    for order in itertools.permutations(FIELDS.items()):
        check(dict(order))


def test_any_of_the_keys_may_have_signed() -> None:
    claims = Claims.read(FIELDS.items())
    digest = hashlib.sha256(BODY).digest()
    others = [Signer(number) for number in range(2, 5)]
    verify(keys(*others, SIGNER), claims, digest, NOW, 300.0)
    with pytest.raises(UnknownSigner):
        verify(keys(*others), claims, digest, NOW, 300.0)
    with pytest.raises(UnknownSigner):
        verify((), claims, digest, NOW, 300.0)


def flipped(data: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_no_single_bit_of_the_body_may_change() -> None:
    for body in flipped(BODY):
        with pytest.raises(BadSignature):
            check(FIELDS, body)


@pytest.mark.parametrize("name", NAMES)
def test_no_single_bit_of_a_field_may_change(name: str) -> None:
    for value in flipped(FIELDS[name].encode()):
        # As aiohttp reads it from the wire.
        with pytest.raises(BadSignature):
            check({**FIELDS, name: value.decode("utf-8", "surrogateescape")})


def test_no_single_bit_of_the_key_may_change() -> None:
    claims, digest = Claims.read(FIELDS.items()), hashlib.sha256(BODY).digest()
    for public in flipped(SIGNER.public):
        with pytest.raises(BadSignature):
            verify([Ed25519PublicKey.from_public_bytes(public)], claims, digest, NOW, 300.0)


def test_lines_cannot_be_moved_from_one_field_to_the_next() -> None:
    """The same message, cut elsewhere."""
    fields = {**FIELDS, NAMES[0]: "req-1\nuser|7", NAMES[1]: ""}
    with pytest.raises(BadSignature):
        check(fields)


def test_a_signature_of_the_same_text_with_another_order_added_is_refused() -> None:
    """RFC 8032 §8.4: S + L fits the equation as well as S does, and must not be taken."""
    signature = bytes.fromhex(FIELDS[NAMES[3]])
    order = 2**252 + 27742317777372353535851937790883648493
    other = int.from_bytes(signature[32:], "little") + order
    forged = signature[:32] + other.to_bytes(32, "little")
    with pytest.raises(BadSignature):
        check({**FIELDS, NAMES[3]: forged.hex()})


# -- when ---


@pytest.mark.parametrize("distance", [-300, -299, -1, 0, 1, 299, 300])
def test_a_clock_may_be_five_minutes_off(distance: int) -> None:
    check(FIELDS, now=NOW + distance)


@pytest.mark.parametrize("distance", [-86_400, -301, -300.5, 300.5, 301, 86_400])
def test_what_is_older_or_newer_is_refused_whoever_signed_it(distance: float) -> None:
    with pytest.raises(BadSignature, match=r"Timestamp .* 300 s") as caught:
        check(FIELDS, now=NOW + distance)
    assert not isinstance(caught.value, UnknownSigner), "no reason to ask for other keys"


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        " 1800000000",
        "+1800000000",
        "-1800000000",
        "1800000000.0",
        "1_800_000_000",
        "1800000000000000000000",
        "0x6b49d200",
        "１８００００００００",  # noqa: RUF001 - digits to Python's int
        "²",
        "soon",
        "1800000000\n",
    ],
)
def test_a_timestamp_is_plain_digits(timestamp: str) -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    text = f"req-1\nuser|7\n{timestamp}\n{digest}".encode()
    fields = {**FIELDS, NAMES[2]: timestamp, NAMES[3]: SIGNER.sign(text).hex()}
    with pytest.raises(BadSignature, match="Timestamp"):
        check(fields)


# -- the fields ---


@pytest.mark.parametrize("name", NAMES)
def test_all_four_fields_must_be_there_once(name: str) -> None:
    others = [item for item in FIELDS.items() if item[0] != name]
    with pytest.raises(BadSignature, match=f"{name} is missing"):
        Claims.read(others)
    with pytest.raises(BadSignature, match=f"{name} is missing"):
        Claims.read([*others, (name, "")])
    for second in (FIELDS[name], "x"):
        with pytest.raises(BadSignature, match=f"{name} is there more than once"):
            Claims.read([*FIELDS.items(), (name.upper(), second)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["x" * 513, "tab\there", "caf\xe9", "\udcff", "nul\0"])
def test_a_field_is_bounded_and_printable(name: str, value: str) -> None:
    with pytest.raises(BadSignature, match=name):
        Claims.read({**FIELDS, name: value}.items())


@pytest.mark.parametrize(
    "signature",
    ["00" * 63, "00" * 65, "0" * 127, "zz" * 64, "aB" * 64, " " * 128, "0x" + "00" * 63],
)
def test_a_signature_is_64_bytes_in_hex(signature: str) -> None:
    with pytest.raises(BadSignature, match="Signature"):
        Claims.read({**FIELDS, NAMES[3]: signature}.items())


def test_what_the_second_seeds_sample_checks_is_no_signature() -> None:
    with pytest.raises(BadSignature):
        Claims.read([("x-fal-signature", "sha256=00")])


def test_a_refusal_does_not_say_what_would_be_right() -> None:
    claims, digest = Claims.read(FIELDS.items()), hashlib.sha256(b"other").digest()
    with pytest.raises(BadSignature) as caught:
        verify(keys(SIGNER), claims, digest, NOW, 300.0)
    right = SIGNER.sign(message(claims, digest)).hex()
    for secret in (right, claims.signature, digest.hex(), SIGNER.public.hex()):
        assert secret not in caught.value.detail


def test_claims_of_another_request_do_not_carry_over() -> None:
    claims = replace(Claims.read(FIELDS.items()), request_id="req-2")
    with pytest.raises(UnknownSigner):
        verify(keys(SIGNER), claims, hashlib.sha256(BODY).digest(), NOW, 300.0)


def test_a_library_agrees_with_the_witness_on_random_texts() -> None:
    for number in range(8):
        text = hashlib.sha256(bytes([number])).digest() * number
        signature = Signer(number).sign(text)
        [key] = keys(Signer(number))
        key.verify(signature, text)
        secret = Ed25519PrivateKey.generate()
        assert ed25519.verify(secret.public_key().public_bytes_raw(), text, secret.sign(text))
