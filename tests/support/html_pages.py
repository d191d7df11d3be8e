"""Reading of HTML pages in tests: balance of tags, addresses that load something, plain words."""

import html.parser
import re

VOID = {"meta", "img", "br"}


class Balance(html.parser.HTMLParser):
    """Collects what is opened and not closed, and every attribute that could load something."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.tags, self.loads = [], [], set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def words_of(text):
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())
