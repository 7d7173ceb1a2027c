"""Long texts of a page."""

from olmoe_ft.data.terminal import middle_cut


def cut(text: str, most: int) -> str:
    """A text without the middle of what is longer than `most` characters; how many are left out is said there."""
    start, end, left_out = middle_cut(text, most // 2, most // 2)
    return f"{start}\n[… {left_out:,} characters are left out …]\n{end}" if left_out else start
