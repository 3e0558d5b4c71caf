"""Croissant metadata (https://docs.mlcommons.org/croissant), version 1.0, of an export."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import file_digest
from pathlib import Path
from typing import Any

from sandbox.datasets.format import MESSAGES, Columns
from sandbox.datasets.format_writer import FormatResult, lineage_file

FILE = "croissant.json"

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The terms of the vocabulary, from its specification."""

_TYPES = {"string": "sc:Text", "int64": "sc:Integer", "float64": "sc:Float", "bool": "sc:Boolean"}
_ENCODINGS = {
    ".jsonl": "application/jsonlines",
    ".json": "application/json",
    ".parquet": "application/x-parquet",
}


def croissant(
    folder: Path, name: str, created: str, results: Sequence[FormatResult]
) -> dict[str, Any]:
    """Return the metadata of the files in a folder.

    Args:
        folder: where the files are.
        name: the name of the dataset.
        created: the date on which the latest run was started, such as 2026-01-31.
        results: one for each format.
    """
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": " ".join(
            f"{result.format.name}: {result.format.about}" for result in results
        ),
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": results[0].choices.license,
        "datePublished": created,
        "distribution": [_file(folder, path) for result in results for path in _paths(result)],
        "recordSet": [_records(result, path) for result in results for path in result.files],
    }


def files_of(folder: Path) -> set[str] | None:
    """Return the data files that the metadata in a folder lists; None without metadata."""
    try:
        listed = json.loads((folder / FILE).read_text(encoding="utf-8"))["distribution"]
        return {str(one["name"]) for one in listed}
    except (ValueError, KeyError, TypeError, OSError):
        return None


def _paths(result: FormatResult) -> Iterator[str]:
    for name in result.files:
        yield name
        if result.format.array:
            yield lineage_file(name)


def _file(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _ENCODINGS[path.suffix],
        "sha256": digest,
    }


def _records(result: FormatResult, file: str) -> dict[str, Any]:
    name = file.rsplit(".", 1)[0]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "field": list(_fields(name, result.columns, file, result.format.array)),
    }


def _fields(above: str, columns: Columns, file: str, array: bool) -> Iterator[dict[str, Any]]:
    """Yield the fields of columns; for conversations the texts of messages. Omits other structs."""
    for column, kind in columns.items():
        extract = {"jsonPath": f"$[*].{column}"} if array else {"column": column}
        source: dict[str, Any] = {"fileObject": {"@id": file}, "extract": extract}
        inner = kind[0] if isinstance(kind, list) else kind
        if kind == MESSAGES:
            source["transform"] = {"jsonPath": "$.content"}  # of each message
            inner = "string"
        if isinstance(inner, list):
            inner = inner[0]
        if isinstance(inner, str):
            yield {
                "@type": "cr:Field",
                "@id": f"{above}/{column}",
                "name": f"{above}/{column}",
                "dataType": _TYPES[inner],
                **({"repeated": True} if isinstance(kind, list) else {}),
                "source": source,
            }
