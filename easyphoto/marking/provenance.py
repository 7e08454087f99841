"""Content Credentials (C2PA 2.2): a signed note inside the PNG that says a model composed this picture, and with what.

By c2pa-python (MIT or Apache-2.0), with the user's own certificate; nothing is fetched or sent, so there is no trusted time.
"""

from __future__ import annotations

import importlib
import io
import json
from pathlib import Path
from typing import Any

from easyphoto.__version__ import __version__
from easyphoto.errors import InputError, ToolMissing
from easyphoto.marking import Claims

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's word for a picture partly made by a model."""
REMEDY = "pip install c2pa-python==0.38.1"
_OFFLINE = {
    "version": 1,
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}


def sign(picture: bytes, certificate: Path, key: Path, claims: Claims) -> bytes:
    """The PNG with a signed manifest.

    Args:
        picture: A PNG.
        certificate: PEM chain, the signer's own certificate first.
        key: Its private key in PEM: EC (P-256, P-384, P-521), Ed25519 or RSA.
        claims: What is said of the picture.

    Raises:
        ToolMissing: c2pa-python is not installed.
        InputError: Certificate or key cannot be read or used for this.
    """
    c2pa = _library()
    secret = _read(key)
    source, target = io.BytesIO(picture), io.BytesIO()
    try:
        info = c2pa.C2paSignerInfo(alg=_algorithm(secret, key), sign_cert=_read(certificate), private_key=secret, ta_url=None)
        with (
            c2pa.Context.from_json(json.dumps(_OFFLINE)) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(_manifest(claims), context) as builder,
        ):
            builder.sign(signer, "image/png", source, target)
    except c2pa.C2paError as error:
        raise InputError(f"{certificate.name} cannot sign the picture ({error}); use a certificate for signing") from error
    return target.getvalue()


def read_manifest(picture: bytes, anchors: str = "") -> dict[str, Any] | None:
    """The manifest of a PNG as c2pa tells it, with `validation_state`; None where there is none.

    Args:
        picture: A PNG.
        anchors: PEM certificates that are trusted.
    """
    c2pa = _library()
    settings = {**_OFFLINE, **({"trust": {"trust_anchors": anchors}} if anchors else {})}
    try:
        with c2pa.Context.from_json(json.dumps(settings)) as context:
            reader = c2pa.Reader.try_create("image/png", io.BytesIO(picture), context=context)
            if reader is None:
                return None
            with reader:
                found: dict[str, Any] = json.loads(reader.json())
    except c2pa.C2paError as error:
        raise InputError(f"the picture's credentials cannot be read ({error}); the file is damaged") from error
    return found


def _manifest(claims: Claims) -> dict[str, Any]:
    agent = {"name": "easyphoto", "version": __version__}
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE, "softwareAgent": agent}
    return {
        "claim_generator_info": [agent],
        "title": claims.title,
        "format": "image/png",
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }


def _algorithm(secret: bytes, path: Path) -> bytes:
    """C2PA's name of the key's kind (C2PA 2.2, 13.2.1)."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(secret, None)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is no private key in PEM without a password ({error}); convert it with openssl") from error
    curves = {256: b"es256", 384: b"es384", 521: b"es512"}
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size in curves:
        return curves[key.key_size]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return b"ps256"
    raise InputError(f"{path} is a key of a kind that C2PA does not know; use EC P-256, Ed25519 or RSA")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check EASYPHOTO_C2PA_CERTIFICATE and _KEY") from error


def _library() -> Any:  # noqa: ANN401 (the library is optional)
    try:
        return importlib.import_module("c2pa")
    except ImportError as error:
        raise ToolMissing(f"signing needs c2pa-python: {REMEDY}, or unset EASYPHOTO_C2PA_CERTIFICATE") from error
