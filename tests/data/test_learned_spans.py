"""What is learned is what the answers say: drawn conversations against code that uses `tokenizers` alone."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.independent_tokenization import END, backend, ids_and_labels, spans
from support.small_tokenizers import FOLDERS, small_tokenizer

from olmoe_ft.data.formats import training_example
from olmoe_ft.data.length import Length
from olmoe_ft.data.pairs import preference_pair
from olmoe_ft.data.tokens import tokenize
from olmoe_ft.stages import STAGES

# What goes wrong at the edges of turns and inside them.
EDGES = st.text(alphabet=" \t\n\r\u00a0\u3000", max_size=4)
ODD = [
    "<|endoftext|>",
    "<|padding|>",
    "<|user|>\n",
    "<|assistant|>\n",
    "|||IP_ADDRESS|||",
    "e\u0301",  # composed by NFC
    "\u0301",  # nothing to compose with
    "\u1100\u1161\u11a8",  # Hangul, composed
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "שלום",
    "مرحبا",
    "\u202eabc\u202c",
    "你好，世界",
    "\u0000",
    "\u200b",
    "\ufeff",
    "{% generation %}",
    "{{ message }}",
    "'s",
    "123",
    "                         ",
]
WORDS = st.one_of(st.sampled_from(ODD), st.text(max_size=12))


@st.composite
def contents(draw) -> str:
    """A text that is not empty, though it may look so."""
    words = draw(st.lists(WORDS, min_size=1, max_size=5))
    text = draw(EDGES) + draw(st.sampled_from([" ", "", "\n", "\n\n"])).join(words) + draw(EDGES)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode(errors="replace").decode()
    return text if text.strip() else f"{text}\u200b"


@st.composite
def conversations(draw) -> list[tuple[str, str]]:
    """One to nine rounds, perhaps after a system turn, perhaps with a last question that has no answer."""
    turns = [("system", draw(contents()))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 9))):
        turns += [("user", draw(contents())), ("assistant", draw(contents()))]
    return [*turns, ("user", draw(contents()))] if draw(st.integers(0, 4)) == 0 else turns


def check(name: str, turns: list[tuple[str, str]]) -> None:
    row = training_example({"messages": [{"role": role, "content": content} for role, content in turns]})
    [found] = tokenize([row], small_tokenizer(name))
    assert (found.input_ids, found.labels) == ids_and_labels(name, turns)
    # the invariant itself, as text: OLMoE's tokenizer writes composed characters
    said = [content + END for role, content in turns if role == "assistant"]
    if (normalizer := backend(name).normalizer) is not None:
        said = [normalizer.normalize_str(text) for text in said]
    assert spans(name, found.labels) == said
    assert found.ends_with_eos


USUAL = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=2000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
KNOWN = [("user", "one"), ("assistant", "first"), ("user", "two"), ("assistant", " second")]


@pytest.mark.parametrize("name", FOLDERS)
@USUAL
@given(conversations())
@example(KNOWN)
@example([("user", "q"), ("assistant", "\n\nBlue."), ("user", "\u200b\n\n"), ("assistant", "\t\t\u200b")])
@example([("user", "q\u200b"), ("assistant", "\u0338 begins with a mark that the text before it could take")])
def test_drawn_conversations(name, turns):
    check(name, turns)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
@MANY
@given(conversations())
def test_many_drawn_conversations(name, turns):
    check(name, turns)


@pytest.mark.parametrize("name", FOLDERS)
@USUAL
@given(conversations(), contents(), contents())
def test_pairs_are_cut_where_the_last_common_turn_ends(name, turns, chosen, rejected):
    """The prompt has the tokens it has by itself, either answer those of its own text and EOS."""
    prompt = turns if turns[-1][0] == "user" else turns[:-1]
    messages = [{"role": role, "content": content} for role, content in prompt]
    row = preference_pair({"prompt": messages, "chosen": chosen, "rejected": rejected})
    [found] = STAGES["dpo"].tokenize([row], Length(None), small_tokenizer(name))
    before, _ = ids_and_labels(name, [*prompt, ("assistant", "x")])
    encode = backend(name).encode
    answers = [encode(answer + END, add_special_tokens=False).ids for answer in (chosen, rejected)]
    assert [found["chosen_ids"], found["rejected_ids"]] == answers
    assert found["prompt_ids"] == before[: -len(encode("x" + END, add_special_tokens=False).ids)]


@pytest.mark.parametrize(
    ("answer", "first"),
    [(" Blue", " Blue"), ("\tBlue", "\t"), ("\nBlue", "\n"), ("\n\nBlue", "\n\n"), ("  Blue", "  ")],
)
def test_white_space_at_the_edge_of_an_answer_is_learned_as_it_stands(answer, first):
    """With OLMoE's tokenizer two line ends are one token: it must not swallow the template's own before them."""
    turns = [("user", "q"), ("assistant", answer)]
    row = training_example({"messages": [{"role": role, "content": content} for role, content in turns]})
    [found] = tokenize([row], small_tokenizer("olmoe"))
    learned = [label for label in found.labels if label != -100]
    assert backend("olmoe").decode(learned, skip_special_tokens=False) == answer + END
    prompt = backend("olmoe").decode(found.input_ids[: found.answer_start], skip_special_tokens=False)
    assert prompt == f"{END}<|user|>\nq\n<|assistant|>\n"
    assert backend("olmoe").decode(learned).startswith(first)
