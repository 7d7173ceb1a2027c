"""The tokenizers that tests of data run with: the tiny one of `data/skills`, and one built as OLMoE's own.

They differ where real data goes wrong: OLMoE's composes characters (NFC), trims the offsets of tokens, has tokens for
runs of spaces and of line ends, and keeps digits together.
"""

from functools import cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from olmoe_ft.data.tokenizer import load_tokenizer

FOLDERS = {
    "tiny": Path(__file__).parents[2] / "data/skills/tokenizer",
    "olmoe": Path(__file__).parent / "olmoe_tokenizer",
}
VOCABULARIES = {"tiny": 512, "olmoe": 3072}


@cache
def small_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """One of the FOLDERS; tests that change it load their own."""
    return load_tokenizer(str(FOLDERS[name]), VOCABULARIES[name])
