"""A hook of mkdocs: the README is the first page of the site, with its links as they are from there."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README as index.md; its links to files of the repository that are no pages become plain text."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    text = re.sub(r"\[([^\]]+)\]\((?!http)(?:\.\./)*(CHANGELOG\.md|CONTRIBUTING\.md|CITATION\.cff)\)", r"\1", text)
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links from a page back to the README lead to the first page."""
    markdown = markdown.replace("](../README.md", "](index.md")
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)


def on_page_content(html: str, **_: object) -> str:
    """Docstrings name classes and functions by Sphinx's roles; here they are code."""
    return re.sub(r":(?:py:)?(?:class|func|meth|mod|math|attr):(?=<code)", "", html)
