"""Keys and passwords in texts, found by the form that their issuers give them or by the name before them."""

import re
from collections.abc import Collection

REMOVED = "[key removed]"
# Lookaheads are bounded, so that no text takes longer than its length.
MIXED = r"(?=[\w-]{0,99}[A-Z0-9])"  # words with hyphens have neither
STARTS = (  # what comes behind is as long as it likes
    r"hf_|api_org_|gsk_|r8_|npm_|gh[pousr]_|tgp_v1_|fw_|rpa_|pplx-",  # Hugging Face, Groq, Replicate, npm, GitHub, …
    r"wandb_v1_|github_pat_|lsv2_(?:pt|sk)_|dckr_[a-z]{2,4}_|dop_v1_",  # W&B, LangSmith, Docker, DigitalOcean
    r"(?:nvapi|xai|pypi|glpat|GOCSPX|sk)-",  # NVIDIA, xAI, PyPI, GitLab, Google, OpenAI and Anthropic
)
FORMS = (
    rf"(?:{STARTS[0]})[A-Za-z0-9]{{20,}}",
    rf"(?:{STARTS[1]})[\w-]{{16,}}",
    rf"(?!sk){STARTS[2]}{MIXED}[\w-]{{16,}}",
    r"sk-(?=[\w-]{0,99}\d)[\w-]{20,}",
    rf"(?:{'|'.join(STARTS)}){MIXED}[\w-]{{4,99}}(?=…|\.\.\.)",  # cut off in a message
    r"(?:[sr]k_(?:live|test)|whsec)_[A-Za-z0-9]{10,}",  # Stripe
    r"ya29\.[\w-]{16,}",  # Google
    r"SG\.[\w-]{10,}\.[\w-]{10,}",  # SendGrid
    r"(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS
    r"xox[a-z]-[\w-]{10,}",  # Slack
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/-]+",
    r"discord(?:app)?\.com/api/(?:v\d+/)?webhooks/[\w/-]+",
    r"AIza[\w-]{30,}",  # Google
    r"eyJ[\w-]{8,300}\.[\w-]{8,}\.[\w-]*",  # a JSON Web Token
    r"eyJhcGlf[\w+/=-]{20,}",  # Neptune
    r"(?=[0-9]{0,39}[a-fA-F])(?:[0-9a-f]{40}|[0-9A-F]{40})(?![0-9A-Za-z])",  # W&B, formerly; revisions of git too
)
BY_FORM = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    rf"|(?<![A-Za-z0-9])(?:{'|'.join(FORMS)})"
)
OF_HEADERS = re.compile(
    r"\b(authorization\\?[\"']?[ \t]*[:=][ \t]*\\?[\"']?(?:bearer|basic|token)[ \t]+)(?!your|token|key)[\w.~+/=-]{8,}"
    r"|\b((?:bearer|basic)[ \t]+)(?=[\w.~+/=-]{0,99}(?:\d|(?-i:[a-z][A-Z])))[\w.~+/=-]{16,}"
    r"|\b(bearer[ \t]+)[a-z_]{22,}",
    re.IGNORECASE,
)
IN_URL = re.compile(r"(?<=://)[^/\s:@\"']*:[^/\s@\"']+@")  # user:password@
ALONE_IN_URL = re.compile(r"(?<=https://)(?=[\w.~%+-]{0,99}[A-Z0-9])[\w.~%+-]{12,}@|(?<=https://)[\w~%+]{20,}@")

PASSWORDS = r"passw(?:or)?d|passphrase|secret|credentials?|(?:api|access|private|account)[_-]?key"
NAMED_TOKENS = (
    r"(?:hub|hf|auth|access|api|bot|refresh|session|wandb|github)[_-]?token"
    r"|x-amz-(?:signature|credential|security-token)"
)
TOKEN = r"(?<!pad_)(?<!eos_)(?<!bos_)(?<!unk_)(?<!sep_)(?<!cls_)(?<!mask_)token"  # those are texts of a vocabulary
BETWEEN = r"\\?[\"']?[ \t]*[:=][ \t]*"
LOOKS_RANDOM = r"(?=[\w.+/=-]{0,99}\d)(?=[\w.+/=-]{0,99}[A-Za-z])[\w.+/=-]{12,}"
PWD = r"(?<![a-z])pwd"  # of a shell it is a folder
NO_FOLDER = r"(?![\"']?[/~.$<\\])"
NO_VALUE = r"(?!(?:null|none|true|false)\b)"
QUOTED = r"(?<=[\"'])[^\"'\\\n]{3,}(?=\\?[\"'])"
BARE = r"[^\s\"'\\,;}\])&]{6,}"

# In a text of ours whatever follows such a name is one; in a row of a dataset only what looks like it.
OF_NAMES = re.compile(
    rf"((?:{PASSWORDS}|{NAMED_TOKENS}){BETWEEN}\\?[\"']?)(?:{QUOTED}|{NO_VALUE}{BARE})"
    rf"|({PWD}{BETWEEN}\\?[\"']?){NO_FOLDER}{NO_VALUE}{BARE}"
    rf"|({TOKEN}{BETWEEN}\\?[\"']?){LOOKS_RANDOM}"
    rf"|(--[\w-]{{0,40}}(?:{PASSWORDS}|token)[ \t]+)(?!-)[^\s\"']{{6,}}",
    re.IGNORECASE,
)
OF_NAMES_IN_ROWS = re.compile(
    rf"((?:{PASSWORDS}|{TOKEN}|{PWD}(?={BETWEEN}{NO_FOLDER})){BETWEEN}\\?[\"']?){LOOKS_RANDOM}", re.IGNORECASE
)

# What a text must have before any of the above can match: most texts are short and have none.
SUSPICIOUS = re.compile(r"[:=@…]|--|\.\.\.|\S{16}")


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
    if "https://" in text:
        text = ALONE_IN_URL.sub(f"{REMOVED}@", text)
    return names.sub(_named, OF_HEADERS.sub(_named, text))


def _named(found: re.Match[str]) -> str:
    return next(filter(None, found.groups())) + REMOVED
