"""The explorer: a web page that shows what a latent space keeps and loses, served or saved as one file."""

from spectangle.explorer.bundle import make_bundle
from spectangle.explorer.save import save_page
from spectangle.explorer.server import serve

__all__ = ["make_bundle", "save_page", "serve"]
