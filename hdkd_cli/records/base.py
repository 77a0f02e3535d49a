"""What all records are made of."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

ClassName = Annotated[
    str, Field(serialization_alias="class", validation_alias=AliasChoices("class", "class_name"))
]
"""The name of a class, which is ``class`` in JSON."""


class Part(BaseModel):
    """A part of a record: frozen, every field documented."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Record(Part):
    """Something that is printed or written, with the name and version of its shape."""

    schema_id: ClassVar[str]
    """What stands under ``schema``."""
    rows: ClassVar[str | None] = None
    """The field whose entries are the rows of a table, if there is one."""
    on_request: ClassVar[frozenset[str]] = frozenset()
    """Fields that JSON holds only where they hold something."""

    def as_record(self) -> dict[str, Any]:
        """The record as JSON holds it, ``schema`` first."""
        fields = self.model_dump(mode="json", by_alias=True)
        left_out = {name for name in self.on_request if not fields[name]}
        kept = {name: value for name, value in fields.items() if name not in left_out}
        return {"schema": self.schema_id, **kept}
