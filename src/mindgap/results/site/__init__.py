"""The pages of a report, and all that is written beside them."""

import jinja2


def environment() -> jinja2.Environment:
    """The templates of the pages: text is escaped, and an unknown name is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("mindgap", "results/site"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
