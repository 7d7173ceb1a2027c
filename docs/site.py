"""mkdocs' hook: the site's pages are the repository's documents, each at its path in the repository.

mkdocs knows one folder of documents; ours lie in several. With the repository's paths a relative link between two
documents works on the site as it does in a checkout.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PATTERNS = ("*.md", "LICENSE", "data/README.md", "recipes/*/README.md")
FOLDER = ("docs/*.md", "docs/*.css", "docs/images/*")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's files, and the documents of the repository."""
    root = Path(config.config_file_path).parent
    found = sorted(path for pattern in (*PATTERNS, *FOLDER) for path in root.glob(pattern))
    ours = [File(path.relative_to(root).as_posix(), str(root), config.site_dir, False) for path in found]
    return Files([*(file for file in files if file.src_dir != config.docs_dir), *ours])


def on_serve(server, config: MkDocsConfig, **_):
    """`mkdocs serve` watches the documents outside of docs/ too."""
    root = Path(config.config_file_path).parent
    for pattern in PATTERNS:
        for path in root.glob(pattern):
            server.watch(str(path))
    return server
