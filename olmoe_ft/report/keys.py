"""Keys and passwords in texts, found by the form that their issuers give them or by the name before them."""

import re
from collections.abc import Collection

REMOVED = "[key removed]"
# Lookaheads are bounded, so that no text takes longer than its length.
FORMS = (
    r"hf_[A-Za-z0-9]{20,}",  # Hugging Face
    r"api_org_[A-Za-z0-9]{20,}",
    r"wandb_v1_\w{20,}",  # Weights & Biases
    r"gh[pousr]_[A-Za-z0-9]{20,}",  # GitHub
    r"github_pat_\w{20,}",
    r"glpat-[\w-]{16,}",  # GitLab
    r"sk-(?=[\w-]{0,99}\d)[\w-]{20,}",  # OpenAI, Anthropic
    r"(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS
    r"xox[a-z]-[\w-]{10,}",  # Slack
    r"AIza[\w-]{30,}",  # Google
    r"eyJ[\w-]{8,300}\.[\w-]{8,}\.[\w-]*",  # a JSON Web Token
    r"[0-9a-f]{40}(?![0-9A-Za-z])",  # Weights & Biases, formerly; revisions of git have the same form
)
BY_FORM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    rf"|(?<![A-Za-z0-9])(?:{'|'.join(FORMS)})"
)
BEARER = re.compile(r"\b(bearer|basic)([ \t]+)(?=[\w.~+/=-]{0,99}\d)[\w.~+/=-]{16,}", re.IGNORECASE)
IN_URL = re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s@\"']+@")  # user:password@

PASSWORDS = r"passw(?:or)?d|passphrase|secret|credentials?|(?:api|access|private|account)[_-]?key"
NAMED_TOKENS = (
    r"(?:hub|hf|auth|access|api|bot|refresh|session|wandb|github)[_-]?token"
    r"|x-amz-(?:signature|credential|security-token)"
)
TOKEN = r"(?<!pad_)(?<!eos_)(?<!bos_)(?<!unk_)(?<!sep_)(?<!cls_)(?<!mask_)token"  # those are texts of a vocabulary
BETWEEN = r"\\?[\"']?[ \t]*[:=][ \t]*"
LOOKS_RANDOM = r"(?=[\w.+/=-]{0,99}\d)(?=[\w.+/=-]{0,99}[A-Za-z])[\w.+/=-]{12,}"
NO_VALUE = r"(?!(?:null|none|true|false)\b)"
QUOTED = r"(?<=[\"'])[^\"'\\\n]{3,}(?=\\?[\"'])"
BARE = r"[^\s\"'\\,;}\])&]{6,}"

# In a text of ours whatever follows such a name is one; in a row of a dataset only what looks like it.
OF_NAMES = re.compile(
    rf"((?:{PASSWORDS}|{NAMED_TOKENS}){BETWEEN}\\?[\"']?)(?:{QUOTED}|{NO_VALUE}{BARE})"
    rf"|({TOKEN}{BETWEEN}\\?[\"']?){LOOKS_RANDOM}"
    rf"|(--[\w-]{{0,40}}(?:{PASSWORDS}|token)[ \t]+)(?!-)[^\s\"']{{6,}}",
    re.IGNORECASE,
)
OF_NAMES_IN_ROWS = re.compile(rf"((?:{PASSWORDS}|{TOKEN}){BETWEEN}\\?[\"']?){LOOKS_RANDOM}", re.IGNORECASE)

# What a text must have before any of the above can match: most texts are short and have none.
SUSPICIOUS = re.compile(r"[:=@]|--|\S{16}")


def without_keys(text: str, names: re.Pattern[str], revisions: Collection[str]) -> str:
    """A text without its keys.

    Args:
        names: `OF_NAMES` or `OF_NAMES_IN_ROWS`.
        revisions: what has the form of a key and is known to be none.
    """
    if not SUSPICIOUS.search(text):
        return text
    text = BY_FORM.sub(lambda found: found[0] if found[0] in revisions else REMOVED, text)
    text = IN_URL.sub(f"{REMOVED}@", text)
    text = BEARER.sub(rf"\1\2{REMOVED}", text)
    return names.sub(lambda found: next(filter(None, found.groups())) + REMOVED, text)
