"""What the fuzzers of `benchmarks/fuzz` found, and what was found while they were written: each once more, made in code."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.fuzz import base_models, checkpoints, loras, photos, records
from benchmarks.fuzz.target import check_sentence
from easyphoto.engine.detect import read_config
from easyphoto.errors import InputError, LoraError, PhotoError, SpecError
from easyphoto.imaging.heif_metadata import Unstrippable, blank_heif
from easyphoto.imaging.io import MAX_SCANS, decode_photo
from easyphoto.imaging.metadata import without_private_metadata
from easyphoto.orders import CheckOrder, Consent
from easyphoto.specs import TrainSpec
from easyphoto.store.codec import dumps, from_json, loads
from easyphoto.store.lora_file import SPEC_KEY, LoraFile, check_lora, read_lora, write_lora
from easyphoto.store.lora_meta import spec_of
from easyphoto.wording import one_line, shown

DEEP = "[" * 100_000


def spec(**changes: object) -> str:
    return json.dumps({"person": "Anna", "base_model": "/m", **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "nested too deep"),
        ('{"person": ' * 5000, "nested too deep"),
        (spec()[:-1] + ', "seed": 1, "seed": 2}', "says 'seed' twice"),
        (spec(seed=10**300), "seed must be a number of at most 63 bits, got a number of 997 bits"),
        (spec(lora={"alpha": 10**400}), "alpha must be a number of at most 63 bits"),
        (spec(seed="9" * 5000), "must be of type int, got '99"),
        (spec(seed=[[]] * 5000), "must be of type int, got a list of 5000"),
        (spec(family="x" * 5000), "must be one of embedded, sd15, sdxl, got 'xx"),
        (spec(family=[]), "must be one of .* got a list of 0"),
        (spec(**{"\ud800" * 3000: 1}), "has no setting"),
        (spec(person="\ud800"), "person holds half of a letter"),
        (spec(base_model="/m/\udfff"), "base_model holds half of a letter"),
        (spec(base_model="/m/\0"), "base_model holds a zero character"),
        (spec(schema_version=10**30), "schema_version must be a number"),
        ("9" * 5000, "no JSON"),
    ],
)  # fmt: skip
def test_odd_json_is_refused_in_one_short_line(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        loads(TrainSpec, text)
    check_sentence(caught.value)


def test_what_no_file_can_hold_is_not_written() -> None:
    with pytest.raises(SpecError, match="this record holds half of a letter"):
        dumps(Consent(given_by="\udcff", given_at="2026-11-21"))
    with pytest.raises(SpecError, match="this record holds half of a letter"):
        dumps(CheckOrder(photos=(Path("bad\udcff.jpg"),), person="Anna"))
    assert loads(Consent, dumps(Consent(given_by="👩🏽‍🚀\n\u2028", given_at=""))).given_by == "👩🏽‍🚀\n\u2028"


def test_a_value_nested_as_deep_as_json_allows_is_still_told() -> None:
    """Its own text would go deeper than Python does."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SpecError, match="got a list of 1"):
        from_json(TrainSpec, {"person": deep, "base_model": "/m"})
    while deep:
        deep = deep[0]  # type: ignore[assignment]  # taken apart by hand: the interpreter would do it by recursion


def lora(path: Path, tensors: dict[str, np.ndarray], **metadata: str) -> LoraFile:
    write_lora(path, LoraFile(tensors={f"{loras.NAME}.{key}": value for key, value in tensors.items()}, metadata=metadata))
    return read_lora(path)


GOOD = {"lora_down.weight": np.ones((2, 3), np.float32), "lora_up.weight": np.ones((4, 2), np.float32)}


@pytest.mark.parametrize("text", [DEEP, '{"person": ', "[]", '{"family": []}', '{"family": {"a": 1}}', "null", "9" * 5000])
def test_a_lora_with_an_odd_spec_has_no_family_and_says_so(tmp_path: Path, text: str) -> None:
    file = lora(tmp_path / "a.safetensors", GOOD, **{SPEC_KEY: text})
    assert file.family is None
    with pytest.raises(SpecError) as caught:
        spec_of(file)
    check_sentence(caught.value)
    check_lora(file)


@pytest.mark.parametrize(
    "change",
    [
        {"lora_down.weight": np.array(1.0, np.float32)},
        {"lora_down.weight": np.ones((0, 3), np.float32), "lora_up.weight": np.ones((4, 0), np.float32)},
        {"alpha": np.ones(0, np.float32)},
        {"alpha": np.ones(2, np.float32)},
        {"lora_up.weight": np.array(1.0, np.float32)},
        {"lora_down.weight": np.ones((2, 3, 3, 3), np.float32), "lora_up.weight": np.ones((4, 2, 3, 1), np.float32)},
        {"alpha": np.array(1e300, np.float64)},
        {"lora_down.weight": np.full((2, 3), 1e300, np.float64)},
    ],
)
def test_factors_without_a_rank_or_a_number_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    file = lora(tmp_path / "a.safetensors", {**GOOD, **change})
    with pytest.raises(LoraError) as caught:
        check_lora(file)
    check_sentence(caught.value)


def test_what_a_lora_says_cannot_fill_the_screen(tmp_path: Path) -> None:
    header = json.dumps({"a" * 3000 + "\n.lora_down.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(LoraError, match="has no lora_up") as caught:
        check_lora(read_lora(path))
    check_sentence(caught.value)
    path.write_bytes(struct.pack("<Q", 3002) + b'"' + b"x" * 3000 + b'"')
    with pytest.raises(LoraError, match="no LoRA we can read") as caught:
        read_lora(path)
    check_sentence(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"in_channels": "' + "x" * 3000 + '"}',
        '{"in_channels": "a\\nb"}',
        '{"in_channels": 4, "cross_attention_dim": "\\n"}',
    ],
)
def test_an_odd_config_of_a_model_is_refused_in_one_line(text: str) -> None:
    base_models.check(text.encode())


@pytest.mark.parametrize("number", ["9" * 4000, "-1", "1e400", "281474976710657"])
@pytest.mark.parametrize("numbers", ['"shape":[320,{},3,3],"data_offsets":[0,0]', '"shape":[320,9,3,3],"data_offsets":[0,{}]'])
def test_a_checkpoint_with_an_impossible_number_is_refused_in_one_line(numbers: str, number: str) -> None:
    header = f'{{"model.diffusion_model.input_blocks.0.0.weight":{{{numbers.format(number)}}}}}'.encode()
    checkpoints.check(struct.pack("<Q", len(header)) + header)


def test_a_config_nested_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(DEEP)
    with pytest.raises(InputError, match="nested too deep"):
        read_config(tmp_path / "config.json")


def test_a_tiff_of_giant_tiles_is_refused_before_they_are_made() -> None:
    assert decode_photo(photos.seeds()["tiled.tif"], "a").width == 16
    for tags in (1, 2):
        with pytest.raises(PhotoError, match="tiles, 16384 x 16384 px, are far larger"):
            decode_photo(twice_tiled() if tags == 2 else photos.seeds()["huge-tiles.tif"], "a")


def twice_tiled() -> bytes:
    """The tile's width and height stand there twice, the second time small."""
    data = photos.seeds()["huge-tiles.tif"]
    place = data.index(struct.pack("<HHII", 322, 4, 1, 16_384))
    again = struct.pack("<HHII", 322, 4, 1, 16) + struct.pack("<HHII", 323, 4, 1, 16)
    start = int.from_bytes(data[4:8], "little")
    count = struct.pack("<H", int.from_bytes(data[start : start + 2], "little") + 2)
    return data[:start] + count + data[start + 2 : place + 24] + again + data[place + 24 :]


def test_a_jpeg_of_a_thousand_passes_is_refused_and_one_of_ten_is_read() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    start = whole.rindex(b"\xff\xda")
    scan = whole[start : start + 2 + int.from_bytes(whole[start + 2 : start + 4], "big")] + b"\0"
    assert decode_photo(whole, "a").width == 64
    assert decode_photo(whole + scan * 1000, "a").width == 64, "what follows the end is another matter"
    with pytest.raises(PhotoError, match=f"more than {MAX_SCANS} passes"):
        decode_photo(whole[:-2] + scan * 1000 + b"\xff\xd9", "a")


def test_an_avif_rid_of_its_exif_can_still_be_read() -> None:
    if "one.avif" not in photos.seeds():
        pytest.skip("this Pillow writes no AVIF")
    data = photos.seeds()["one.avif"]
    stripped = without_private_metadata(data)
    assert b"A Camera" in data
    assert b"A Camera" not in stripped
    assert (decode_photo(stripped, "a").pixels == decode_photo(data, "a").pixels).all()


def test_a_heic_of_a_hundred_million_pieces_is_refused_before_they_are_counted() -> None:
    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(content), kind) + content

    pieces = bytes(6) + struct.pack(">H", 2000) + struct.pack(">HHH", 1, 0, 65_535) * 2000
    parts = box(b"iinf", bytes(6)) + box(b"iloc", pieces) + box(b"iprp", b"")
    with pytest.raises(Unstrippable, match="pieces without a length"):
        blank_heif(box(b"ftyp", b"heic" + bytes(4)) + box(b"meta", bytes(4) + parts))


def test_words_of_strangers_become_one_short_line() -> None:
    assert one_line("a\nb\x1b[31m\ud800") == "a?b?[31m?"
    assert len(one_line("x" * 5000)) == 160
    assert shown({"a": 1}) == "an object of 1"
    assert shown(2**64) == "a number of 65 bits"
    assert (shown(True), shown(1.5), shown("a\n")) == ("True", "1.5", r"'a\n'")


def test_every_seed_of_every_fuzzer_holds() -> None:
    for target in (records.TARGET, loras.TARGET, base_models.TARGET, checkpoints.TARGET, photos.TARGET):
        for data in target.seeds().values():
            target.check(data)
