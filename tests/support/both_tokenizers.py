"""The tokenizers that tests of data run with: the tiny one of `data/skills`, and one built as OLMoE's own.

They differ where real data goes wrong: OLMoE's composes characters (NFC), trims the offsets of tokens, has tokens for
runs of spaces and of line ends, and keeps digits together.
"""

from pathlib import Path

from olmoe_ft.data.tokenizer import load_tokenizer

FOLDERS = {
    "tiny": Path(__file__).parents[2] / "data/skills/tokenizer",
    "olmoe": Path(__file__).parent / "olmoe_tokenizer",
}
VOCABULARIES = {"tiny": 512, "olmoe": 3072}
TOKENIZERS = {name: load_tokenizer(str(folder), VOCABULARIES[name]) for name, folder in FOLDERS.items()}
