"""Where commands may write: never over what they read, and over what is there with ``--force`` only."""

from __future__ import annotations

from pathlib import Path

from localgd.data.files import format_of
from localgd.run.folder import FILES, METRICS, MORE
from localgd.run.whole import check_place
from localgd.stored import read_json


def check_free(
    out: Path | None, *, force: bool, model: str | Path | None = None, data: str | Path | None = None
) -> None:
    """Refuse a file that must not be written, before any work is done.

    `model` and `data` are what the command reads: no file of theirs is replaced, by `force` neither, and none is put
    where it would be one more node of the data.

    Raises
    ------
    FileExistsError
        If `out` is a folder, belongs to what is read, or is there and `force` is off; or a file lies on the way to it.
    PermissionError
        If it may not be written.
    ValueError
        If `force` is on without a file that it could replace.

    Examples
    --------
    >>> check_free(Path(__file__), force=False)
    Traceback (most recent call last):
    FileExistsError: --out ...places.py exists already; choose another name, or replace it with --force
    """
    if out is None:
        if force:
            raise ValueError("--force replaces the file of --out; give that, or leave it out")
        return
    check_place(out)
    if out.is_dir():
        raise FileExistsError(f"--out {out} is a folder; give the name of a file, which may be in it")
    if model is not None and _is_of_model(out, Path(model)):
        raise FileExistsError(f"--out {out} exists already, as part of the model {model}; choose another name")
    if data is not None and _same(out, Path(data)):
        raise FileExistsError(f"--out {out} exists already, as the rows that are read; choose another name")
    if data is not None and _same(out.parent, Path(data)) and format_of(out) is not None:
        raise FileExistsError(f"--out {out} would be a node of the folder {data}; choose another folder")
    if out.exists() and not force:
        raise FileExistsError(f"--out {out} exists already; choose another name, or replace it with --force")


def check_free_in(folder: Path | None, *names: str, force: bool, data: str | Path | None = None) -> None:
    """Refuse a folder for these files, as `check_free` does each of them, or if one is a table beside others.

    It would be read as one more node, or lie in a run folder.
    """
    for name in names:
        check_free(None if folder is None else folder / name, force=force, data=data)
    tables = any(format_of(Path(name)) is not None for name in names)
    held = sorted(path.name for path in folder.iterdir()) if tables and folder is not None and folder.is_dir() else []
    other = next((name for name in held if name not in names and format_of(Path(name)) is not None), None)
    if other is not None:
        raise FileExistsError(
            f"--out {folder} holds {other}, beside which {names[0]} would be one more node or part of a run; choose "
            "another folder"
        )


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _is_of_model(out: Path, model: Path) -> bool:
    """Return whether a file is the model, or one of the run that it is of; metrics left there later are not."""
    if _same(out, model):
        return True
    run = model if model.is_dir() else model.parent
    if not (run / "config.json").is_file() or (model.is_file() and model.name != "model.json"):
        return False
    return any(_same(out, run / name) and (name != METRICS or _of_training(out)) for name in (*FILES, *MORE))


def _of_training(metrics: Path) -> bool:
    """Return whether metrics are those of what a run held out, which say what they are of."""
    try:
        return "of" in read_json(metrics)
    except (TypeError, ValueError):
        return True  # nobody knows
