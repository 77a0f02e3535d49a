"""Typed records: one schema id a shape, every field documented, nothing lost on the way."""

import json
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest

from hdkd_cli import records
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.records.base import Part, Record
from hdkd_cli.records.evaluation import Anytime
from hdkd_cli.records.export import Export, Exported
from hdkd_cli.records.prediction import Prediction

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "records.md"

for file in pkgutil.iter_modules(records.__path__):
    import_module(f"hdkd_cli.records.{file.name}")


def subclasses(of: type) -> set[type]:
    return {c for s in of.__subclasses__() for c in {s} | subclasses(s)}


HERE = {c for c in subclasses(Part) if c.__module__.startswith("hdkd_cli.")}
RECORDS = sorted((c for c in HERE if issubclass(c, Record) and c is not Record), key=str)


def test_all_records_are_seen() -> None:
    assert {ExitPolicy, Anytime, Exported, Export} <= set(RECORDS)
    assert len(RECORDS) >= 10


def test_all_are_documented() -> None:
    page = PAGE.read_text()
    assert {c.__name__ for c in HERE - {Record} if f"\n## {c.__name__}\n" not in page} == set()


def test_one_schema_id_a_shape() -> None:
    ids = [record.schema_id for record in RECORDS]
    assert len(set(ids)) == len(ids)
    assert all(name.startswith("hdkd/") and name.endswith("/1") for name in ids)


@pytest.mark.parametrize("part", sorted(HERE - {Record}, key=str), ids=lambda c: c.__name__)
def test_every_field_says_what_it_is(part: type[Part]) -> None:
    assert part.__doc__
    assert {name for name, field in part.model_fields.items() if not field.description} == set()
    assert part.model_config.get("frozen")


@pytest.mark.parametrize("record", RECORDS, ids=lambda c: c.__name__)
def test_rows_are_a_field(record: type[Record]) -> None:
    assert record.rows is None or record.rows in record.model_fields


def test_a_record_can_be_read_back_and_may_have_gained_fields() -> None:
    said = Prediction(image="a.png", label=3, class_name="cat", exit=2, confidence=0.5, macs=7)
    data = json.loads(json.dumps(said.as_record()))
    assert data == {
        "schema": "hdkd/prediction/1", "image": "a.png", "label": 3, "class": "cat", "exit": 2,
        "confidence": 0.5, "macs": 7,
    }  # fmt: skip
    assert Prediction.model_validate({**data, "later": 1}) == said
