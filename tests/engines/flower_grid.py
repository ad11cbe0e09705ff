"""A Flower grid in one process: the real handlers, and everything turned into bytes and back, but no network."""

from __future__ import annotations

import itertools

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from localgd.flower import FlowerEngine, answer
from localgd.methods.served import ENCODERS, TASKS

RUNS = itertools.count(1)


def over_the_wire(message):
    """What the other side gets."""
    objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
    key = message.object_id
    out = inflate_object_from_contents(key, objects)
    out.metadata.__dict__["_message_id"] = key
    return out


class LocalGrid(Grid):
    """One Context per node; `lost` says whose answer is lost, of which message."""

    def __init__(self, app, configs, lost=lambda number, node: False):  # noqa: ARG005
        self.app, self.configs, self.lost, self.number = app, list(configs), lost, 0
        self.offline = set()
        self.content = lambda content: content
        self.new_run()

    def new_run(self):
        """What every run of an app begins with: nodes that remember nothing."""
        run_id = next(RUNS)
        # Flower refuses to make a message outside of a run
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 1, 1
        self.contexts = {2**63 + i: self.fresh(run_id, 2**63 + i, config) for i, config in enumerate(self.configs)}
        self.replies = {}

    @staticmethod
    def fresh(run_id, node_id, config):
        return Context(run_id=run_id, node_id=node_id, node_config=dict(config), state=RecordDict(), run_config={})

    def restart(self, place):
        """A SuperNode that was started again: its state is gone."""
        node_id = 2**63 + place
        self.contexts[node_id] = self.fresh(self.contexts[node_id].run_id, node_id, self.configs[place])

    def set_run(self, run): ...

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None):
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self):
        return [node for node in self.contexts if node not in self.offline]

    def get_nodes(self):
        return [NodeInfo(node_id=node, status="online") for node in self.get_node_ids()]

    def push_messages(self, messages):
        ids = []
        for message in messages:
            received = over_the_wire(message)
            ids.append(received.metadata.message_id)
            node, self.number = message.metadata.dst_node_id, self.number + 1
            if node in self.offline:
                reply = Message(Error(code=5, reason="offline"), reply_to=received)
            else:
                try:
                    reply = self.app(received, self.contexts[node])
                except Exception as error:  # noqa: BLE001  as flwr-clientapp does
                    reply = Message(Error(code=2, reason=f"{type(error)}"), reply_to=received)
                if not reply.has_error():
                    reply = Message(self.content(reply.content), reply_to=received)
            if not self.lost(self.number, node - 2**63):
                self.replies[ids[-1]] = over_the_wire(reply)
        return ids

    def pull_messages(self, message_ids):
        return [self.replies.pop(key) for key in list(message_ids) if key in self.replies]

    def send_and_receive(self, messages, *, timeout=None):  # noqa: ARG002
        return list(self.pull_messages(self.push_messages(messages)))


def grid_of(shards, tasks=TASKS, encoders=ENCODERS, **options):
    """The grid of nodes that hold these."""
    held = list(shards)
    app = answer(ClientApp(), lambda context: held[context.node_id - 2**63], tasks=tasks, encoders=encoders)
    unguarded = {"min-rows": 1, "min-batch": 1, "min-group": 1}  # nodes of the suites have fewer than eight rows
    configs = [{"share-errors": True, "secret": f"only node {i} knows", **unguarded} for i in range(len(held))]
    return LocalGrid(app, configs, **options)


class Agreeing(FlowerEngine):
    """A federation whose nodes agree to whatever the test's server asks."""

    agreed_to: list
    encoders: list

    def round(self, task, message, nodes=None):
        self.agreed_to.append(type(task))
        return super().round(task, message, nodes)

    def map(self, encode):
        mapped = super().map(encode)
        self.encoders.append(type(encode))
        return mapped

    def again(self):
        """Return another engine, of the same nodes."""
        other = Agreeing(self._client.grid, timeout=5.0, poll=1e-4)
        other.agreed_to, other.encoders = self.agreed_to, self.encoders
        return other


def flower(shards, **options):
    """A federation over Flower, for the suites that every engine passes."""
    tasks, encoders = [], []
    engine = Agreeing(grid_of(shards, tasks, encoders), **{"timeout": 5.0, "poll": 1e-4, **options})
    engine.agreed_to, engine.encoders = tasks, encoders
    return engine
