"""What is wrong with a file of a fixed form, in words."""

from pydantic import ValidationError


def first_fault(error: ValidationError) -> str:
    """The first fault that pydantic found: the place in the file, and what is wrong there."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
