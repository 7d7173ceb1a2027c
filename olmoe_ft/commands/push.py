"""`olmoe-ft push`: send a run's weights, card and page to the Hub, or say what would be sent."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from olmoe_ft.report.to_send import ToSend

UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def push(
    run: Annotated[
        str, typer.Argument(help="A run directory, or a folder that `olmoe-ft merge` has written.", show_default=False)
    ],
    repository: Annotated[str, typer.Argument(help="Where to send it: owner/name.", show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent; send nothing.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a repository that is made.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="The branch, made where it is not there.", show_default="main")
    ] = None,
    message: Annotated[
        str | None, typer.Option(help="The message of the commit.", show_default="Upload NAME with olmoe_ft")
    ] = None,
) -> None:
    """Send final/, its model card and report.html to the Hugging Face Hub, in one commit.

    States of the training never go. Keys are looked for before anything is sent. The repository is private unless
    --public is given.
    """
    from olmoe_ft.data.terminal import say
    from olmoe_ft.report.to_send import collect

    sent = collect(run, repository)
    message = message or f"Upload {repository.rpartition('/')[2]} with olmoe_ft"
    if not dry_run:
        from olmoe_ft.report.hub_upload import check_reachable, upload

        check_reachable(repository)
    branch = f", branch {revision}" if revision else ""
    visible = "public" if public else "private"
    say(f"{'would send' if dry_run else 'sending'} to {repository} ({visible}{branch}), as {message!r}:")
    _print_files(sent)
    if dry_run:
        return
    url, others = upload(sent, public, revision, message)
    if others:
        say(f"also there, and left as it was: {', '.join(others)}")
    say(f"sent: {url}")


def _print_files(sent: "ToSend") -> None:
    from olmoe_ft.data.terminal import say

    width = max(len(file.name) for file in sent.files)
    for file in sent.files:
        say(f"  {file.name:<{width}}  {_size(file.size):>10}  {file.note}".rstrip())
    say(f"  {'in all':<{width}}  {_size(sent.size):>10}")
    for name, why in sent.left.items():
        say(f"not sent: {name} ({why})")
    for check in sent.checks:
        say(f"check: {check}")


def _size(count: int) -> str:
    return next((f"{count / unit:,.1f} {name}" for unit, name in UNITS if count >= unit), f"{count:,} bytes")
