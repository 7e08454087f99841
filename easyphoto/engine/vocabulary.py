"""CLIP's tokenizer for checkpoints that are one file: such files have its weights inside, but not its words.

The words are the same for SD1.5 and SDXL. They come with the packages `open_clip` and `clip` (every WebUI has both), as the
file that CLIP's authors published under the MIT licence; or from wherever `EASYPHOTO_TOKENIZER` points.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

from easyphoto.errors import InputError, ToolMissing

_FILE = "bpe_simple_vocab_16e6.txt.gz"
_PACKAGES = ("open_clip", "clip")
_MERGES = 49152 - 256 - 2
"""How many of the file's merges CLIP uses: its vocabulary was to have 49152 words with the bytes and two more."""
_MARKS = ("<|startoftext|>", "<|endoftext|>")


def find_vocabulary(chosen: Path | None = None) -> Path:
    """CLIP's words: the authors' file, or a tokenizer's folder.

    Args:
        chosen: What the user points to; None looks into the installed packages.

    Raises:
        InputError: What the user points to is not there.
        ToolMissing: There is none.
    """
    if chosen is not None:
        if not chosen.exists():
            raise InputError(f"EASYPHOTO_TOKENIZER points to {chosen}, which does not exist; name a tokenizer's folder")
        return chosen
    for package in _PACKAGES:
        for folder in _folders(package):
            if (folder / _FILE).is_file():
                return folder / _FILE
    raise ToolMissing(
        "a checkpoint that is one file needs CLIP's vocabulary, which is not installed; run "
        "`pip install --no-deps open-clip-torch`, or let EASYPHOTO_TOKENIZER point to a folder with vocab.json and merges.txt"
    )


def _folders(package: str) -> tuple[Path, ...]:
    """Where a package lies, without importing it: both want torchvision and more, which we do not have."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # what a host put in its place says nothing about itself
        return ()
    return tuple(Path(folder) for folder in (spec.submodule_search_locations if spec else None) or ())


def load_tokenizer(source: Path, pad: str = _MARKS[1]) -> Any:  # noqa: ANN401 (transformers' own class)
    """A CLIP tokenizer of 77 tokens a prompt.

    Args:
        source: From `find_vocabulary`.
        pad: What prompts are filled up with.

    Raises:
        InputError: It is no vocabulary of CLIP's.
    """
    if source.is_dir():
        return _from_folder(source, pad)
    with tempfile.TemporaryDirectory(prefix="easyphoto-clip-") as folder:
        write_tokenizer(source, Path(folder))
        return _from_folder(Path(folder), pad)


def _from_folder(folder: Path, pad: str) -> Any:  # noqa: ANN401
    from transformers import CLIPTokenizerFast

    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise InputError(f"{folder} holds no tokenizer (tokenizer.json or vocab.json); choose another EASYPHOTO_TOKENIZER")
    return CLIPTokenizerFast.from_pretrained(folder, local_files_only=True, pad_token=pad, model_max_length=77)


def write_tokenizer(source: Path, folder: Path) -> None:
    """Write CLIP's words as a tokenizer's folder, as transformers 4 and 5 read it.

    Raises:
        InputError: It is not the file that CLIP's authors published.
    """
    try:
        lines = gzip.decompress(source.read_bytes()).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{source} cannot be read as CLIP's vocabulary ({error}); install open-clip-torch again") from error
    merges = lines[1 : _MERGES + 1]
    if len(merges) != _MERGES or any(line.count(" ") != 1 for line in merges):
        raise InputError(f"{source} is not CLIP's vocabulary; install open-clip-torch again")
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(line.replace(" ", "") for line in merges), *_MARKS]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(("#version: 0.2", *merges)) + "\n", encoding="utf-8")
    begin, end = _MARKS
    settings = {"tokenizer_class": "CLIPTokenizer", "bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _byte_letters() -> list[str]:
    """A printable letter for each byte, in the order of CLIP's first words: what prints as itself, then the rest."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in shown] + [chr(256 + place) for place in range(256 - len(shown))]
