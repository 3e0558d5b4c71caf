"""Recognizes the files that an earlier report wrote."""

from __future__ import annotations

from pathlib import Path

from sandbox.viewer.report.rendered_figures import TYPES


def find_unknown_file(folder: Path) -> str | None:
    """Find a file in a folder of figures that no report wrote.

    A report writes every figure in all file types (older ones no PDF), so a file without its
    siblings is unknown.

    Returns:
        The first such file name, or None.

    Raises:
        OSError: the folder cannot be read.
    """
    names = {path.name for path in folder.iterdir()}
    stems = {Path(name).stem for name in names}
    figures = [{f"{stem}.{kind}" for kind in TYPES} for stem in stems]
    complete = (
        files for files in figures if {name for name in files if name[-4:] != ".pdf"} <= names
    )
    written = set().union(*complete)
    return min(names - written, default=None)
