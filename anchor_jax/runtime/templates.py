"""Text from the Jinja templates of the package."""

from typing import Any

import jinja2

from anchor_jax.runtime.paths import printable


def render(folder: str, template: str, values: dict[str, Any], *, escape: bool = False) -> str:
    """Return the text of a template, see `printable`; a variable that has no value is an error.

    Args:
      folder: of the template, in the package, such as "reporting".
      template: name of the file.
      values: of the variables.
      escape: whether values are escaped for HTML.
    """
    loader = jinja2.PackageLoader("anchor_jax", folder)
    environment = jinja2.Environment(
        loader=loader, autoescape=escape, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return printable(environment.get_template(template).render(values))
