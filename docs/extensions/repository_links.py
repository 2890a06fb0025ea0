"""Links from a page to files and folders outside of ``docs/``: on the site they are the words alone.

On GitHub such links lead to the file. The site has no copy of the repository. A link to what is not there is a warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


class WordsAlone(SphinxPostTransform):
    """Replaces the links that lead out of ``docs/`` and into the repository, before MyST looks for their pages."""

    default_priority = 5

    def run(self, **options: Any) -> None:
        """Replace them in one page."""
        for node in list(self.document.findall(addnodes.pending_xref)):
            target = node.get("reftarget", "")
            if node.get("reftype") == "myst" and target.startswith("../"):
                path = (Path(self.env.doc2path(node["refdoc"])).parent / target).resolve()
                if path.exists() and not path.is_relative_to(self.app.srcdir):
                    node.replace_self(node.children)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the transform."""
    app.add_post_transform(WordsAlone)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
