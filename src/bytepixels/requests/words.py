"""A type for flags whose text is taken as typed."""

from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

Words = Annotated[  # a flag's text as it was typed: "None" is a class like any other, and a prompt
    str | None,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="TEXT",
        instance_from_str=lambda typed: typed[0],
        is_instance=lambda value: value is None or isinstance(value, str),
        str_from_instance=lambda value: [str(value)],
    ),
]
