"""`SIGN`: who made a bundle, by Ed25519 (`docs/bundle.md`, "Signature").

The arithmetic is the package `cryptography`'s, which the extra `sign` installs. Without it bundles still load
unless the caller asks about signatures: one that nobody asks about protects nobody, for who changes a bundle
can also take its signature away.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinyinfer.bundle.container import SIGNATURE_BYTES, Signer
from tinyinfer.errors import Fail, InvalidArgument, InvalidBundle, NoSuchFile

KEY_BYTES = 32
PublicKey = str | bytes | os.PathLike[str]
"""32 bytes, 64 hexadecimal digits, PEM, or the path of a file with one of the latter two."""


def signer(private_key: str | bytes | os.PathLike[str]) -> Signer:
    """Signs with an Ed25519 private key: PEM, or the path of a PEM file. Fail without
    `cryptography`, InvalidArgument for what is no such key."""
    serialization, ed25519, _ = _cryptography("to sign a bundle")
    pem = private_key if isinstance(private_key, bytes) else _file(private_key)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"no private key in PEM without a password: {error}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise InvalidArgument(f"bundles are signed with Ed25519, not with a {type(key).__name__}")
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    public = key.public_key().public_bytes(*raw)
    return lambda digest: public + key.sign(digest)


def public_key(key: PublicKey) -> bytes:
    """The 32 bytes of an Ed25519 public key. InvalidArgument where it is none, NoSuchFile for a path without
    a file, Fail for PEM without `cryptography`."""
    if isinstance(key, bytes):
        if len(key) == KEY_BYTES:
            return key
        content = key
    elif isinstance(key, str) and _is_hex(key):
        return bytes.fromhex(key)
    else:
        content = _file(key)
    text = content.decode("latin-1").strip()
    if _is_hex(text):
        return bytes.fromhex(text)
    serialization, ed25519, _ = _cryptography("to read a key in PEM (64 hexadecimal digits go without it)")
    try:
        found = serialization.load_pem_public_key(content)
    except ValueError:
        raise InvalidArgument("a public key is PEM or 64 hexadecimal digits, not this") from None
    if not isinstance(found, ed25519.Ed25519PublicKey):
        raise InvalidArgument(f"bundles are signed with Ed25519, not with a {type(found).__name__}")
    return found.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def check(
    label: str,
    section: bytes | None,
    digest: bytes,
    trusted_keys: Iterable[PublicKey] | None,
    required: bool,
) -> bytes | None:
    """The public key whose signature of `digest` a bundle holds; None where there is none, or where it cannot
    be checked and nobody asked. `section` is the content of `SIGN`. InvalidBundle for a signature that is
    wrong, missing, or of a key that is not trusted; Fail where it is asked for and cannot be
    checked."""
    trusted = None if trusted_keys is None else [public_key(key) for key in trusted_keys]
    asked = required or trusted is not None
    if section is None:
        if asked:
            raise InvalidBundle(f"{label}: not signed, and a signature is required")
        return None
    key, signature = section[:KEY_BYTES], section[KEY_BYTES:SIGNATURE_BYTES]
    try:
        _, ed25519, InvalidSignature = _cryptography("to check the signature of a bundle")
    except Fail:
        if asked:
            raise
        return None
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, digest)
    except (InvalidSignature, ValueError):
        raise InvalidBundle(f"{label}: the signature is wrong: changed after it was signed") from None
    if trusted is not None and key not in trusted:
        raise InvalidBundle(f"{label}: signed by {key.hex()}, which is none of the trusted keys")
    return key


def _is_hex(text: str) -> bool:
    return len(text) == 2 * KEY_BYTES and all(c in "0123456789abcdefABCDEF" for c in text)


def _file(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise NoSuchFile(f"no such key file: {os.fspath(path)}") from None
    except OSError as error:
        raise InvalidArgument(f"cannot read the key {os.fspath(path)}: {error.strerror}") from None


def _cryptography(purpose: str) -> tuple[Any, Any, Any]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise Fail(f"{purpose}, install cryptography: pip install 'tinyinfer[sign]'") from None
    return serialization, ed25519, InvalidSignature
