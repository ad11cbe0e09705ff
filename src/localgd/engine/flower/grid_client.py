"""Questions out, answers in, over a Flower grid: with a limit on time, and no answer to anything but its question."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from localgd.engine.flower.records import MAX_MB, QUERY, Opened, closed, keys, n_bytes, opened, text
from localgd.engine.policy import check_apart
from localgd.errors import RemoteError, plain
from localgd.limits import RefusedError

FATE = {3: "no answer in time", 5: "the node is offline"}
"""Flower's codes for answers that will not come."""


@dataclass(eq=False)
class GridClient:
    """The way to the nodes of a grid; timeout, poll and max_mb are those of the engine.

    A message that is older than `timeout` is not run any more; every look for answers costs the SuperLink something.
    """

    grid: Grid
    timeout: float = 60.0
    poll: float = 0.05
    max_mb: float = MAX_MB
    bytes_up: int = 0
    bytes_down: int = 0

    def __post_init__(self) -> None:
        """Check every number once."""
        for name in ("timeout", "poll", "max_mb"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")

    def ask(self, questions: Mapping[int, RecordDict]) -> dict[int, Opened | Exception]:
        """Put a question to each of these nodes; return what came back, or why nothing did."""
        messages = [Message(content, node, QUERY, ttl=self.timeout) for node, content in questions.items()]
        taken = list(self.grid.push_messages(messages))
        taken = taken if len(taken) == len(messages) else [""] * len(messages)  # all or none, if it is too large
        waiting = {key: node for key, node in zip(taken, questions, strict=True) if key}
        self.bytes_down += sum(n_bytes(questions[node]) for node in waiting.values())
        lost, late = "the SuperLink did not take the message", f"no answer within {self.timeout:g} s"
        answers: dict[int, Opened | Exception] = {node: ConnectionError(lost) for node in questions}
        answers |= {node: TimeoutError(late) for node in waiting.values()}
        begin = time.monotonic()
        while waiting:
            for reply in self.grid.pull_messages(list(waiting)):
                node = waiting.pop(reply.metadata.reply_to_message_id, None)
                if node is not None:
                    answers[node] = self._read(reply)
            waited = time.monotonic() - begin
            if not waiting or waited >= self.timeout:
                break
            time.sleep(min(max(self.poll, waited / 20), self.timeout - waited))
        return answers

    def _read(self, reply: Message) -> Opened | Exception:
        if reply.has_error():
            code, reason = reply.error.code, reply.error.reason
            if code in FATE:
                return TimeoutError(FATE[code])
            return RemoteError(f"its ClientApp failed (code {code}: {reason!s:.500}); see the log of its SuperNode")
        self.bytes_up += n_bytes(reply.content)
        try:
            came = opened(reply.content, self.max_mb)
            said = came.head.get("says")
            if said != "error":
                return came
            keys(came.head, ("says", "error", "trace"))
            return RemoteError(text(came.head["error"], "its error"), text(came.head["trace"], "its trace"))
        except RefusedError as error:
            return RefusedError(f"its answer was refused: {error}")

    def members(self, n_nodes: int) -> dict[str, int]:
        """Wait until so many nodes are online, ask all that are for their names; return Flower's numbers by name.

        A TimeoutError if they are fewer when the time is up, or one of them does not answer; a RuntimeError if one
        answers with an error, and a ValueError if two share a name.
        """
        names: dict[int, str] = {}
        end = time.monotonic() + self.timeout
        while True:
            online = sorted(self.grid.get_node_ids())
            silent, enough = [node for node in online if node not in names], len(online) >= n_nodes
            if silent and enough:
                names |= self._names(silent)
                silent = [node for node in silent if node not in names]
            if enough and not silent:
                break
            if time.monotonic() >= end:
                raise TimeoutError(
                    f"{len(online)} of {n_nodes} nodes are online after {self.timeout:g} s"
                    + (f", and {silent} did not answer: see the log of its SuperNode, start it again" if enough else "")
                    + (", or" if enough else "; start the others,")
                    + " wait longer with timeout, or lower n_nodes"
                )
            time.sleep(self.poll)
        check_apart(names.values(), "give every node its own node-name")
        return dict(sorted((name, node) for node, name in names.items()))

    def _names(self, nodes: list[int]) -> dict[int, str]:
        found = {}
        for node, answer in self.ask(dict.fromkeys(nodes, closed({"ask": "name"}))).items():
            if isinstance(answer, TimeoutError):
                continue
            try:
                if isinstance(answer, Exception):
                    raise answer
                keys(answer.head, ("says", "node_id"))
                found[node] = name = text(answer.head["node_id"], "its name", 200)
                if plain(name) != name:
                    raise RefusedError(f"its name is {name!a:.80}, and holds signs that cannot be printed")  # noqa: TRY301
            except (RemoteError, RefusedError, ConnectionError) as error:
                remedy = "its ClientApp must answer localgd (localgd.flower.answer), and its rows must be there"
                raise RuntimeError(f"Flower's node {node} does not tell its name ({error}); {remedy}") from error
        return found
