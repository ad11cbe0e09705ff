"""Run folders: what a run leaves on disk, written whole or not at all.

RUN/config.json        method, data, seed, versions: how to do it again; digests of the files, none of their rows
    history.csv        one row per round (`localgd.run.history.Row`)
    model.json         coefficients, intercept, classes, feature names, preparation
    coefficients.csv   coefficients on the scale of the rows as given (`localgd.Model.coefficients`)
    certificate.json   what is proved about the model
    failures.json      which node failed at what and in which round, with its traceback; only if one did
    metrics.json       how well the model does on rows or nodes that were held out; metrics.png shows it
    scores.csv         the score of each C on each fold, if C was chosen by `localgd tune`; scores.png shows them
    convergence.png    margin bounds and certified angle against rounds, if it was asked for (`--plot`)
    checkpoint/        what the run needs to go on, if it was cut short (`localgd.run.checkpoint`)

While a run is at work its folder is called RUN.partial and holds config.json and checkpoint/. It takes the name RUN
when everything is in it, so whenever a run is cut short, one of the two is there and whole.
"""

from __future__ import annotations

import filecmp
import json
import math
import platform
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl

from localgd.core import Problem
from localgd.data.model import Model
from localgd.data.recipe import Recipe
from localgd.losses import LOSSES, Softmax
from localgd.problems.hard_margin import HardMargin
from localgd.problems.least_squares import LeastSquares
from localgd.problems.regularised import Regularised
from localgd.run.checkpoint import FILE as SERVER
from localgd.run.checkpoint import folder_lock
from localgd.run.history import Run
from localgd.run.whole import check_place
from localgd.stored import read_json, write_json

FILES = ("config.json", "history.csv", "model.json", "certificate.json")
FIGURE, FAILURES, CHECKPOINT, RECIPE = "convergence.png", "failures.json", "checkpoint", "recipe.json"
COEFFICIENTS = "coefficients.csv"
METRICS, METRICS_FIGURE = "metrics.json", "metrics.png"
"""What evaluations of the run's model may leave there."""

SCORES, SCORES_FIGURE = "scores.csv", "scores.png"
"""What a choice of C leaves there."""

MORE = (COEFFICIENTS, FIGURE, FAILURES, CHECKPOINT, METRICS, METRICS_FIGURE, SCORES, SCORES_FIGURE)
"""What may be in a run folder beside `FILES`."""


def partial(folder: Path) -> Path:
    """Return where a run is kept while it is at work: RUN.partial."""
    return folder.with_name(f"{_name(folder)}.partial")


def _name(folder: Path) -> str:
    """Return the name of a run folder; a ValueError if its path has none, as . and / have."""
    if folder.name in {"", ".."}:
        raise ValueError(f"{folder} has no name that a run folder could have; name one, such as {folder / 'RUN'}")
    return folder.name


def checkpoints_of(folder: Path) -> Path:
    """Return where the checkpoints of a run are kept while it is at work."""
    return partial(folder) / CHECKPOINT


@contextmanager
def begun(folder: Path, config: Mapping[str, Any], recipe: Recipe, *, force: bool) -> Iterator[None]:
    """Make the folder of a run that is to be at work, and hold it; its checkpoints go into `checkpoints_of` it.

    With `force` it starts over where an unfinished run is; else, or if that is at work, it is a FileExistsError.
    """
    place = partial(folder)
    _refuse_at_work(folder)
    if force and place.is_dir():
        _refuse_strange(place)
        shutil.rmtree(place, ignore_errors=True)
    try:
        place.mkdir(parents=True)
    except FileExistsError:
        _refuse_at_work(folder)  # it may have begun meanwhile
        raise FileExistsError(_unfinished(folder)) from None
    with folder_lock(place):
        (place / CHECKPOINT).mkdir()
        write_json(place / CHECKPOINT / RECIPE, recipe.to_dict())
        write_json(place / "config.json", config)
        with _dropped_if_empty(folder):
            yield


def _unfinished(folder: Path) -> str:
    return (
        f"{folder}: {partial(folder)} holds a run that was cut short; go on with it with `localgd resume "
        f"{shlex.quote(str(folder))}`, or start over with --force"
    )


def _refuse_at_work(folder: Path) -> None:
    """Refuse a run whose folder another process holds, whatever it is called at the moment."""
    for name in (partial(folder), folder):
        with suppress(FileNotFoundError, NotADirectoryError), folder_lock(name):
            pass


def finished(folder: Path) -> Path:
    """Return the name of the run folder, whatever it is called while the run is at work.

    Examples
    --------
    >>> finished(Path("RUN.partial")).name, finished(Path("RUN")).name
    ('RUN', 'RUN')
    """
    return folder.with_name(_name(folder).removesuffix(".partial"))


@contextmanager
def reopened(folder: Path) -> Iterator[bytes]:
    """Find a run that was cut short and hold it; how it was begun and its rows are prepared is for `known` to read.

    One that has left its results already goes on in a copy of its checkpoint.

    Raises
    ------
    ValueError
        If there is nothing to go on with.
    FileExistsError
        If it is at work.
    """
    folder = finished(folder)
    place = partial(folder)
    _refuse_at_work(folder)
    if not place.is_dir():
        if not (folder / CHECKPOINT).is_dir():
            what = "is finished: it ended by itself" if (folder / "model.json").is_file() else "is no run folder"
            raise ValueError(f"{folder} {what}, so there is nothing to resume; start a run with localgd train … --out")
        _content(folder)  # before anything is made of it
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as fresh:
            try:
                shutil.copytree(folder / CHECKPOINT, Path(fresh, place.name, CHECKPOINT))
                shutil.copy2(folder / "config.json", Path(fresh, place.name))
            except (shutil.Error, shutil.SpecialFileError) as error:  # a pipe, or a link to nowhere
                raise ValueError(f"{folder / CHECKPOINT} holds what is no plain file ({error})") from error
            Path(fresh, place.name).rename(place)
    with folder_lock(place):
        content = _content(place)
        with _dropped_if_empty(folder):
            yield content


@contextmanager
def _dropped_if_empty(folder: Path) -> Iterator[None]:
    """Take away what a run that failed leaves, if there is nothing new in it to go on from."""
    try:
        yield
    except BaseException:
        server, before = (held / CHECKPOINT / SERVER for held in (partial(folder), folder))
        if not server.is_file() or (before.is_file() and filecmp.cmp(server, before, shallow=False)):
            shutil.rmtree(partial(folder), ignore_errors=True)
        raise


def _content(place: Path) -> bytes:
    try:
        config, recipe = read_json(place / "config.json"), read_json(place / CHECKPOINT / RECIPE)
        content = json.dumps([config, recipe]).encode()
        known(content)
    except (OSError, ValueError) as error:
        if (place / CHECKPOINT / SERVER).is_file():
            why = f"{place} holds a checkpoint, but its config.json or {CHECKPOINT}/{RECIPE} is missing or damaged"
            raise ValueError(f"{why} ({error}); bring it back, or start over with --force") from error
        raise ValueError(f"{place} was cut short before it had begun ({error}); start it again with --force") from error
    return content


def known(content: bytes) -> tuple[dict[str, Any], Recipe]:
    """Return the config of a run that was cut short, and its recipe, from what `reopened` says.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    config, recipe = json.loads(content)
    if not isinstance(config, dict) or not (isinstance(config.get("flags"), dict) or "flower" in config):
        raise ValueError("config.json does not say how the run was begun")
    return config, Recipe.from_dict(recipe)


def write(
    folder: Path,
    run: Run,
    model: Model,
    config: Mapping[str, Any],
    *,
    draw: Callable[[Mapping[str, list[Any]], Path], None] | None = None,
    force: bool = False,
) -> None:
    """Write a run folder: all files into RUN.partial first, which then takes the name in one step.

    `draw` draws ``convergence.png`` from the history's columns. A run folder that is there is a FileExistsError, or
    with `force` is replaced; if the disk is full it is untouched.
    """
    place = partial(folder)
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "config.json", {**config, "method": _described(run)})
    pl.DataFrame(run.columns()).write_csv(place / "history.csv")
    model.save(place / "model.json")
    model.coefficients().write_csv(place / COEFFICIENTS)
    write_json(place / "certificate.json", run.certificate.to_dict())
    if run.failures:
        write_json(place / FAILURES, [asdict(failure) for failure in run.failures])
    if draw is not None:
        draw(run.columns(), place / FIGURE)
    _swap(place, folder, force=force)
    if not run.unfinished:
        shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)


def save(folder: Path, run: Run, recipe: Recipe, *, force: bool) -> None:
    """Write the folder of a run that was not made in one, without a figure: see `Run.save`."""
    check_free(folder, force=force)
    config = {"versions": versions("localgd", "numpy")}
    with begun(folder, config, recipe, force=force):
        write(folder, run, run.model(recipe), config, force=force)
    shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)  # nothing to go on from


class Remembered(NamedTuple):
    """What a run folder says of how the run was made: flags, if it was a command, what it was proved to be, files.

    The files are those with its rows, each by its name and a digest.
    """

    flags: Mapping[str, Any]
    problem: Problem | None
    files: Mapping[str, Any] = MappingProxyType({})


def remembered(model: Path) -> Remembered:
    """Return what a run folder, or that of a ``model.json``, remembers; nothing if it is none.

    Raises
    ------
    ValueError
        If its ``config.json`` is damaged.
    """
    path = (model.parent if model.name == "model.json" else model) / "config.json"
    if not path.exists():
        return Remembered({}, None)
    config = read_json(path)
    try:
        flags, method = config.get("flags", {}), config["method"]
        return Remembered({**flags}, _problem(method["problem"]), {**config.get("files", {})})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}); take model.json in place of the folder"
        ) from error


def _problem(entry: Mapping[str, Any]) -> Problem | None:
    """Return the problem that a config describes; None if it is none of ours."""
    fields_ = {name: value for name, value in entry.items() if name not in {"rule", "n_blocks"}}
    match entry["rule"]:
        case HardMargin.__name__:
            return HardMargin()
        case LeastSquares.__name__:
            return LeastSquares(**fields_)
        case Regularised.__name__:
            known = {type(one).__name__: one for one in LOSSES.values()} | {Softmax.__name__: LOSSES["logistic"]}
            loss = known.get(fields_["loss"]["rule"])
            # "inf" is not in JSON
            return None if loss is None else Regularised(loss, float(fields_["C"]), fields_["intercept"])
    return None


def check_free(folder: Path, *, force: bool) -> None:
    """Refuse a folder that must not be written, before any work is done.

    Raises
    ------
    FileExistsError
        If the folder is there, not empty, and `force` is off or it is no run folder, or a file lies on the way to it.
    ValueError
        If it has no name.
    PermissionError
        If it may not be made where it is to be; folders on the way to it are.
    """
    place = partial(folder)
    check_place(folder)
    _refuse_at_work(folder)
    if place.exists() and not force:
        raise FileExistsError(_unfinished(folder))
    if not folder.exists() and not folder.is_symlink():
        return
    plain = folder.is_dir() and not folder.is_symlink()
    if plain and not any(folder.iterdir()):
        return
    if not plain or not all((folder / name).is_file() for name in FILES):
        raise FileExistsError(f"{folder} exists already and is not a run folder; choose another name")
    if not force:
        raise FileExistsError(f"{folder} exists already; choose another name, or replace it with force (--force)")
    _refuse_strange(folder)


def _refuse_strange(folder: Path) -> None:
    """Refuse to delete a folder that holds what no run leaves."""
    strange = {path.name for path in folder.iterdir()} - {*FILES, *MORE}
    if strange:
        raise FileExistsError(f"{folder} also holds {min(strange)}, which force would delete; move it away first")


def _swap(fresh: Path, folder: Path, *, force: bool) -> None:
    if not (force and folder.exists()):
        with suppress(OSError):
            folder.rmdir()  # if it is empty
        fresh.rename(folder)  # refused by the system if another run took the name meanwhile
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
    folder.rename(old / folder.name)
    try:
        fresh.rename(folder)
    except OSError:
        (old / folder.name).rename(folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def versions(*names: str) -> dict[str, str]:
    """Return the versions of Python and of these packages; "unknown" of one that says none."""
    found = dict.fromkeys(names, "unknown")
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {"python": platform.python_version(), **found}


def _described(run: Run) -> dict[str, Any]:
    """Return the method as data: a rule is its own configuration."""

    def plain(value: Any) -> Any:
        return (
            {"rule": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in fields(value)}}
            if hasattr(value, "__dataclass_fields__")
            else [plain(part) for part in value]
            if isinstance(value, tuple)
            else repr(value)  # JSON knows no infinity
            if isinstance(value, float) and not math.isfinite(value)
            else value
        )

    method = run.method
    parts = {"problem": method.problem, "task": method.task, "merge": method.merge}
    return {"name": method.name, "why": method.why, **{name: plain(part) for name, part in parts.items()}}
