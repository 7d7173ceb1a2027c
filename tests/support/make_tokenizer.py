"""Writes the tests' small tokenizer: all but its vocabulary is as in the one that OLMoE was pretrained with.

    python tests/support/make_tokenizer.py

The normalizer, the splitting into words, the trimmed offsets, the tokens for runs of spaces and the special tokens are
those of `allenai/gpt-neox-olmo-dolma-v1_5` (a test marked `real_data` compares them). The vocabulary is learned from
this project's own documents and code, so another state of the project gives another one; the committed file counts.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
VOCABULARY = 3072
UNUSED, PADDING, END_OF_TEXT = "|||IP_ADDRESS|||", "<|padding|>", "<|endoftext|>"
OTHERS = ("|||EMAIL_ADDRESS|||", "|||PHONE_NUMBER|||")
SPACES = range(24, 1, -1)  # runs of so many spaces are tokens


def texts() -> list[str]:
    """The documents and the code of the project."""
    folders = ("olmoe_ft", "docs", "recipes", "data/skills")
    files = [PROJECT / "README.md", *(path for folder in folders for path in sorted((PROJECT / folder).rglob("*")))]
    return [file.read_text(encoding="utf-8") for file in files if file.suffix in (".md", ".py", ".yaml", ".jinja")]


def make() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    learned = VOCABULARY - len(SPACES) - len(OTHERS) - 1
    trainer = trainers.BpeTrainer(
        vocab_size=learned,
        special_tokens=[UNUSED, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in SPACES])
    tokenizer.add_tokens([AddedToken(text, normalized=True) for text in OTHERS])
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False)])
    return tokenizer


def main() -> None:
    values = json.loads(make().to_str())
    for token in values["added_tokens"]:
        if token["content"] == UNUSED:  # the trainer knows special tokens alone
            token |= {"special": False, "normalized": True}
    values["decoder"]["add_prefix_space"] = False  # which the library's constructor does not let one say
    folder = HERE / "olmoe_tokenizer"
    folder.mkdir(exist_ok=True)
    text = json.dumps(values, ensure_ascii=False, indent=0)
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
