"""What pages of tables and pictures share: letters, and colours in a light and a dark theme."""

__all__ = ["PAGE_STYLE"]

# pictures have black letters on nothing or on white: they stay on a white card in the dark
PAGE_STYLE = """:root{color-scheme:light dark;--ink:#1a1f2b;--soft:#5b6475;--line:#d8dde6;--back:#fff;--link:#2f5fd0;
--lost:#a04000}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9f0;--soft:#9aa4b8;--line:#353c4a;--back:#14171e;--link:#7ea2ff;
--lost:#f0a070}img{padding:10px;border-radius:8px}}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back)}
a{color:var(--link)}.soft,.note{color:var(--soft)}img{max-width:100%;height:auto;background:#fff}
"""
