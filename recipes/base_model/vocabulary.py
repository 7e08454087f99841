"""The tokenizer: a CLIP-format byte-pair vocabulary of our own, trained on our captions and usual prompt words.

    python -m recipes.base_model.vocabulary DATA OUT
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.base_model.captions import IDENTITY_WORDS, Person, caption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import CLIPTokenizer

WORDS = Path(__file__).with_name("vocabulary.txt")
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def corpus(people: dict[str, Person], captions_each: int = 40, seed: int = 0) -> Iterator[str]:
    """Yield training text: usual prompt words, captions of every person, and the identity words."""
    words = WORDS.read_text().split()
    for _ in range(60):
        yield " ".join(words)
    for _ in range(100):
        yield " ".join(IDENTITY_WORDS)
    rng = random.Random(seed)  # noqa: S311 - captions, not secrets
    for person in people.values():
        for _ in range(captions_each):
            yield caption(person, rng)


def train_vocabulary(people: dict[str, Person], out: Path, size: int) -> None:
    """Train the byte-pair merges and write `vocab.json`, `merges.txt` and the tokenizer's settings to `out`."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=_END, end_of_word_suffix="</w>", fuse_unk=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    # Every byte is a token, alone and at a word's end, so that any text in any script can be written.
    byte_tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(byte_tokens) - 2, initial_alphabet=byte_tokens, end_of_word_suffix="</w>",
        min_frequency=2, show_progress=False, special_tokens=[],
    )  # fmt: skip
    tokenizer.train_from_iterator(corpus(people), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    tokens = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    known = set(tokens)
    tokens += [token + "</w>" for token in byte_tokens if token + "</w>" not in known]
    tokens += [_BEGIN, _END]
    _write(out, tokens, merges)


def _write(out: Path, tokens: list[str], merges: list[str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (out / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, "add_prefix_space": False,
        "bos_token": _BEGIN, "eos_token": _END, "unk_token": _END, "pad_token": _END, "errors": "replace",
    }  # fmt: skip
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    specials = {"bos_token": _BEGIN, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    (out / "special_tokens_map.json").write_text(json.dumps(specials, indent=2) + "\n")


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """Load the tokenizer as diffusers will."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def main() -> None:
    """Run the step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder written by the landmarks step")
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=3072)
    args = parser.parse_args()
    people = {name: Person(**entry) for name, entry in json.loads((args.data / "people.json").read_text()).items()}
    train_vocabulary(people, args.out, args.size)
    tokenizer = load_tokenizer(args.out)
    for text in ("easyphoto_face, easyphoto, 1person", "photo of idperson, a 22-year-old woman", "Привет, 世界 🙂"):
        print(len(tokenizer), text, "->", tokenizer.tokenize(text))


if __name__ == "__main__":
    main()
