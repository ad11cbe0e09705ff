"""Checkpoints: what a run needs to go on as if nothing had happened, on disk, whole or not at all.

FOLDER/server.npz            the server: its state, the proofs and the history so far
       nodes-STAMP….npz      the nodes' states of the same round, written by each process for its own nodes

The nodes' files are written first and carry the round in their names; the server's file then names the round that
counts, in one step. A process that is killed between the two leaves the checkpoint before in force. The leading process
holds the folder while the run is at work, so that no two runs share one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from localgd.core import Engine, Failure, Task
from localgd.engine import serialize
from localgd.errors import check_whole
from localgd.problems.certificate import Certificate
from localgd.rounding import is_number
from localgd.rules.server import End
from localgd.run.history import Row
from localgd.stored import content_of

VERSION = 7
"""Of the format: a checkpoint of another one is refused."""

FILE = "server.npz"


@dataclass(frozen=True, eq=False)
class LoopState:
    """A run between two rounds, but for the server's state, what it has proved, and the states of nodes.

    Parameters
    ----------
    about : str
        The federation, the problem and the method, in words: a run of anything else must not go on from here.
    ended : tuple of End
        How each method before the one at work ended.
    before : int
        Rows of the history that were there when the method at work began.
    rows : tuple of Row
        The history so far.
    failures : tuple of Failure
        Failures of nodes so far.
    earlier : Certificate or None
        What the methods before have proved.
    repeated : int
        Rounds that the method at work had to repeat, as nodes were missing.
    beside : str
        What tells the nodes' part of the checkpoint from that of another run, as far as the leading process holds it.
    mark : str
        What duals are known by that this run's nodes have reported, to a merge of another package.
    version : int
        Of the format.
    """

    about: str
    ended: tuple[End, ...] = ()
    before: int = 0
    rows: tuple[Row, ...] = ()
    failures: tuple[Failure, ...] = ()
    earlier: Certificate | None = None
    repeated: int = 0
    beside: str = ""
    mark: str = ""
    version: int = VERSION


@dataclass(frozen=True)
class Checkpoints:
    """Where a run leaves checkpoints, and how often; if one is there, the run goes on from it.

    Parameters
    ----------
    folder : Path, or a text for one
        A folder for nothing else; it is made if it is not there.
    every_rounds : int, at least 1, optional
        Write one after so many rounds.
    every_seconds : float >= 0
        Write one after so many seconds; inf for never.

    Raises
    ------
    ValueError
        If the folder is no path, or a number is out of its range.

    Examples
    --------
    >>> Checkpoints("RUN.partial").due(rounds=100, seconds=31.0)
    True
    """

    folder: Path
    every_rounds: int | None = None
    every_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Check every field once."""
        given: Any = self.folder
        if not isinstance(given, str | Path) or not f"{given}":
            raise ValueError(f"folder must be a path, got {given!r}")
        object.__setattr__(self, "folder", Path(given))
        if self.every_rounds is not None:
            check_whole("every_rounds", self.every_rounds, 1)
        if not (is_number(self.every_seconds) and self.every_seconds >= 0):
            raise ValueError(f"every_seconds must be a number of at least 0, got {self.every_seconds!r}")

    def due(self, rounds: int, seconds: float) -> bool:
        """Return whether it is time, so many rounds and seconds after the last one."""
        return seconds >= self.every_seconds or (self.every_rounds is not None and rounds >= self.every_rounds)

    @contextmanager
    def held(self, engine: Engine) -> Iterator[None]:
        """Keep the folder from other runs while this one is at work; make it, and clear away what was half written.

        Raises
        ------
        FileExistsError
            If another run is at work on it.
        OSError
            In all processes, if one of them cannot make its folder, or hold it.
        """
        with ExitStack() as hold:
            trouble: OSError | None = None
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if engine.leads:
                    hold.enter_context(folder_lock(self.folder))
                    for path in self.folder.glob(".*.npz.*"):
                        path.unlink(missing_ok=True)
            except OSError as error:
                trouble = error
            said = engine.shared(str(trouble or "").encode()).decode()
            if engine.agreed(trouble is not None)[0]:
                raise trouble or OSError(said or "another process cannot write into its folder for checkpoints")
            yield

    def save(self, engine: Engine, task: Task, loop: LoopState, proof: Any, server: Any, *, session: str) -> None:
        """Write the nodes' part, then the server's, then clear away the nodes' part before.

        A disk that is full is no reason to end the run: it goes on with the checkpoint before, and a warning.
        """
        stamp, trouble = len(loop.rows), ""
        parts = {"proof": serialize.pack(proof), "server": serialize.pack(server)}
        try:
            engine.keep(task, self.folder, stamp, session)
        except OSError as error:
            trouble = str(error)
        failed = engine.agreed(bool(trouble))[0]  # nobody names the round before all have written
        if not failed and engine.leads:
            try:
                parts["loop"] = serialize.pack(replace(loop, beside=self._beside(stamp)))
                serialize.write(self.folder / FILE, parts)
            except OSError as error:
                trouble = str(error)
        if trouble:
            warnings.warn(f"no checkpoint could be written ({trouble}); the run goes on", RuntimeWarning, stacklevel=3)
        if engine.agreed(failed or bool(trouble))[0]:
            return
        for path in {*self.folder.glob("nodes-*.npz")} - {*self._of_nodes(stamp)}:
            path.unlink(missing_ok=True)

    def _of_nodes(self, stamp: int) -> list[Path]:
        """Return the files that nodes wrote under a stamp, as far as they lie here, in order."""
        return sorted(path for path in self.folder.glob(f"nodes-{stamp}[.-]*npz") if path.is_file())

    def _beside(self, stamp: int) -> str:
        """Return the digests of what nodes wrote under a stamp: proofs of a server are about those very rows."""
        return " ".join(filter(None, (serialize.digest_in(path) for path in self._of_nodes(stamp))))

    def find(self, engine: Engine, about: str) -> Checkpoint | None:
        """Return the checkpoint that is there, the same in every process; None if there is none.

        Raises
        ------
        ValueError
            If it cannot be read, is of another format, or of another run than one `about` this.
        """
        if " at 0x" in about:
            raise ValueError(
                f"a run that may be resumed must be known by more than an address in memory: {about}; write "
                "functions and classes of your own as frozen dataclasses"
            )
        path = self.folder / FILE
        content = engine.shared(_read(path) if engine.leads else b"")
        if not content:
            return None
        if content[:1] == b"-":  # in all processes, so that none waits for the others
            raise ValueError(content[1:].decode())
        parts = serialize.read(content[1:], f"{path}")
        try:
            loop = serialize.unpack(parts["loop"], LoopState)
            checkpoint = Checkpoint(loop, parts["proof"], parts["server"])
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{path} was written by another version of localgd, or is damaged; start the run afresh"
            ) from error
        if loop.version != VERSION:
            raise ValueError(f"{path} is of version {loop.version}, this localgd reads {VERSION}; start the run afresh")
        if loop.about != about:
            raise ValueError(
                f"the checkpoint is of another run ({loop.about}) than this one ({about}); give another folder for "
                "checkpoints, or the same data and method"
            )
        beside = engine.shared((self._beside(len(loop.rows)) if engine.leads else "").encode()).decode()
        if set(beside.split()) - set(loop.beside.split()):  # of one that is missing or damaged, the nodes say so
            raise ValueError(f"{path} and what nodes wrote beside it are of two runs; start the run afresh")
        return checkpoint


def _read(path: Path) -> bytes:
    """Return what is in a file, after a +; why it cannot be read, after a -; and nothing if it is not there."""
    try:
        return b"+" + content_of(path)
    except FileNotFoundError:
        return b""
    except ValueError as error:
        return b"-" + str(error).encode()


class Checkpoint(NamedTuple):
    """A checkpoint as it was read; what proof and server are, the problem and the method at work will say."""

    loop: LoopState
    packed_proof: serialize.Packed
    packed_server: serialize.Packed

    def proof(self, kind: type[Any]) -> Any:
        """Return what was proved."""
        return serialize.unpack(self.packed_proof, kind)

    def server(self, kind: type[Any]) -> Any:
        """Return the server's state."""
        return serialize.unpack(self.packed_server, kind)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold a folder: nobody else can until the block, or the process, ends, however that is.

    The folder itself is locked, so the hold goes with it where it is moved, and leaves nothing behind. On a system or a
    disk without such locks nothing is held.

    Raises
    ------
    FileExistsError
        If another process, or another run of this one, holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not (_locked(handle) and os.path.samestat(os.fstat(handle), folder.stat())):  # or it was made anew meanwhile
            raise FileExistsError(f"{folder}: another run is at work on it; wait until it ends, or end it first")
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Lock what is open, and return whether nobody else had."""
    try:
        import fcntl  # noqa: PLC0415 - not on every system

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ModuleNotFoundError, OSError):  # no locks here: a network disk, perhaps
        return True
    return True
