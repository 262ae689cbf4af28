"""Signed, wrongly signed and unsigned bundles."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bundle_samples import network_plan, rehashed, sections_of

from tinyinfer.bundle.container import ENTRY, HEADER, Container, save_bundle, write_bundle
from tinyinfer.bundle.signature import public_key, signer
from tinyinfer.errors import Fail, InvalidArgument, InvalidBundle, NoSuchFile

ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519", reason="no cryptography")
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))


def _pem(key) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _public(key, raw: bool = True) -> bytes:
    if raw:
        return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


@pytest.fixture(scope="module")
def signed() -> bytes:
    return write_bundle(sections_of({"a": network_plan()}), signer(_pem(KEY)))


def test_a_signature_is_checked(signed: bytes, tmp_path: Path) -> None:
    assert Container.open(signed).signed_by == _public(KEY)
    assert Container.open(signed, require_signature=True).entries[-1].kind == "SIGN"
    path = tmp_path / "key.pem"
    path.write_bytes(_public(KEY, raw=False))
    digits = tmp_path / "key.hex"
    digits.write_text(_public(KEY).hex() + "\n")
    for key in (_public(KEY), _public(KEY).hex(), _public(KEY, raw=False), path, str(digits)):
        assert Container.open(signed, trusted_keys=[_public(OTHER), key]).signed_by == _public(KEY)
    with pytest.raises(InvalidBundle, match="none of the trusted keys"):
        Container.open(signed, trusted_keys=[_public(OTHER)])
    with pytest.raises(InvalidBundle, match="none of the trusted keys"):
        Container.open(signed, trusted_keys=[])


def test_signing_is_reproducible_and_from_a_file(signed: bytes, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(_pem(KEY))
    path = tmp_path / "model.tinf"
    save_bundle(path, sections_of({"a": network_plan()}), signer(key))
    assert path.read_bytes() == signed


def test_an_unsigned_bundle(signed: bytes) -> None:
    unsigned = write_bundle(sections_of({"a": network_plan()}))
    assert Container.open(unsigned).signed_by is None
    for asked in ({"require_signature": True}, {"trusted_keys": [_public(KEY)]}):
        with pytest.raises(InvalidBundle, match="not signed, and a signature is required"):
            Container.open(unsigned, **asked)


def test_whatever_is_changed_breaks_the_signature(signed: bytes) -> None:
    """Every section, its flags, the version and the signature, with all hashes made right again."""
    container = Container.open(signed)
    changed = []
    for number, entry in enumerate(container.entries[:-1]):
        if entry.size:
            content = bytearray(signed)
            content[entry.offset + entry.size // 2] ^= 1
            changed.append(rehashed(bytes(content)))
        content = bytearray(signed)
        content[HEADER.size + ENTRY.size * number + 4] ^= 1
        changed.append(rehashed(bytes(content)))
    changed.append(rehashed(signed, minor=1))
    for position in range(96):
        content = bytearray(signed)
        content[container.entries[-1].offset + position] ^= 1
        changed.append(rehashed(bytes(content)))
    for data in changed:
        with pytest.raises(InvalidBundle, match="the signature is wrong"):
            Container.open(data)


def test_keys_that_are_none(tmp_path: Path) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(InvalidArgument, match="Ed25519"):
        signer(_pem(curve))
    with pytest.raises(InvalidArgument, match="Ed25519"):
        public_key(_public(curve, raw=False))
    with pytest.raises(InvalidArgument, match="no private key"):
        signer(b"nonsense")
    with pytest.raises(InvalidArgument, match="PEM or 64 hexadecimal digits"):
        public_key(b"nonsense")
    with pytest.raises(NoSuchFile):
        signer(tmp_path / "none.pem")
    with pytest.raises(NoSuchFile):
        public_key("none.pem")


def test_without_the_package(signed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody asks about loads; what is asked about says what to install."""
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert Container.open(signed).signed_by is None
    assert public_key(_public(KEY).hex()) == _public(KEY)
    for ask in (
        lambda: signer(b""),
        lambda: Container.open(signed, require_signature=True),
        lambda: Container.open(signed, trusted_keys=[_public(KEY)]),
    ):
        with pytest.raises(Fail, match=r"pip install 'tinyinfer\[sign\]'"):
            ask()
