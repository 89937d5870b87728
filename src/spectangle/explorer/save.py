"""The explorer as one HTML file that works from disk: no server, no network."""

from pathlib import Path

from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.resources import INLINE

from spectangle.errors import SpectangleError
from spectangle.explorer.bundle import Bundle
from spectangle.explorer.template import fill_document
from spectangle.files import refuse_existing, write_beside

__all__ = ["save_page"]


def save_page(bundle: Bundle, path: str | Path, overwrite: bool = False) -> Path:
    """Write the page, with Bokeh's JavaScript and the decoder's weights inside.

    Raises:
        SpectangleError: The name does not end in .html, exists, or cannot be written.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise SpectangleError(f"save={path} does not end in .html; the explorer is saved as a web page.")
    refuse_existing(path, overwrite)
    document = Document()
    fill_document(document, bundle, "saved")
    html = file_html(
        document,
        INLINE,
        template=document.template,
        template_variables=document.template_variables,
        title=document.title,
    )
    write_beside(path, html)
    return path
