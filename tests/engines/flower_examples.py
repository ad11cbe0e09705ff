"""Flower's own examples, quickstart-sklearn and quickstart-pytorch, in the shape that they have, on sets at hand."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from engines.flower_grid import LocalGrid
from localgd.flower import Certified, Features, answer

OPEN = {"min-rows": 1, "min-batch": 1, "min-group": 1}


def nodes(n):
    return [{"partition-id": i, "num-partitions": n, "share-errors": True, **OPEN} for i in range(n)]


# Flower's quickstart-sklearn: task, client and server


class Scikit:
    """The functions of its task.py, over a set that scikit-learn brings along."""

    def __init__(self, data, *, n_nodes=3, fit_intercept=True):
        self.X, self.y = data
        self.X = self.X / np.abs(self.X).max(axis=0).clip(1e-9)
        self.n_nodes, self.fit_intercept = n_nodes, fit_intercept

    def get_model_params(self, model):
        return [model.coef_, model.intercept_] if model.fit_intercept else [model.coef_]

    def set_model_params(self, model, params):
        model.coef_ = params[0]
        if model.fit_intercept:
            model.intercept_ = params[1]
        return model

    def create_log_reg_and_instantiate_parameters(self):
        model = LogisticRegression(C=1e4, max_iter=20, warm_start=True, fit_intercept=self.fit_intercept)
        n_classes = len(np.unique(self.y))
        model.classes_ = np.arange(n_classes)
        rows = 1 if n_classes == 2 else n_classes
        model.coef_, model.intercept_ = np.zeros((rows, self.X.shape[1])), np.zeros(rows)
        return model

    def load_data(self, partition_id):
        return self.X[partition_id :: self.n_nodes], self.y[partition_id :: self.n_nodes]

    def client(self):
        app = ClientApp()

        @app.train()
        def train(msg: Message, context: Context):
            model = self.create_log_reg_and_instantiate_parameters()
            self.set_model_params(model, msg.content["arrays"].to_numpy_ndarrays())
            X_train, y_train = self.load_data(context.node_config["partition-id"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Flower's example: few local epochs do not converge
                model.fit(X_train, y_train)
            metrics = MetricRecord({"num-examples": len(X_train), "train_logloss": 0.0})
            content = RecordDict({"arrays": ArrayRecord(self.get_model_params(model)), "metrics": metrics})
            return Message(content=content, reply_to=msg)

        @app.evaluate()
        def evaluate(msg: Message, context: Context):
            model = self.create_log_reg_and_instantiate_parameters()
            self.set_model_params(model, msg.content["arrays"].to_numpy_ndarrays())
            X_test, y_test = self.load_data(context.node_config["partition-id"])
            metrics = MetricRecord({"num-examples": len(X_test), "accuracy": model.score(X_test, y_test)})
            return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)

        return answer(app, self.load)  # the line that makes it answer

    def load(self, context):
        i = context.node_config["partition-id"]
        return Features(f"site {i}", *self.load_data(i))

    def server(self, wrap, n_rounds):
        app, kept = ServerApp(), []

        @app.main()
        def main(grid, context):  # noqa: ARG001  Flower's own signature
            arrays = ArrayRecord(self.get_model_params(self.create_log_reg_and_instantiate_parameters()))
            strategy = wrap(FedAvg(fraction_train=1.0, fraction_evaluate=1.0))  # the other line
            kept.extend([strategy, strategy.start(grid=grid, initial_arrays=arrays, num_rounds=n_rounds)])

        return app, kept

    def run(self, wrap, n_rounds):
        app, kept = self.server(wrap, n_rounds)
        app(LocalGrid(self.client(), nodes(self.n_nodes)), Context(1, 1, {}, RecordDict(), {}))
        return kept


# Flower's quickstart-pytorch: task, client and server


class Net(nn.Module):
    """Its convolutions, for the small images of the digits."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(8 * 3 * 3, 32)
        self.fc2 = nn.Linear(32, 16)
        self.fc3 = nn.Linear(16, 10)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv1(x)))
        x = x.view(-1, 8 * 3 * 3)
        x = torch.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


class Torch:
    """The functions of its client_app.py and server_app.py."""

    def __init__(self, make, images, labels, *, n_nodes=3, features=None, epochs=20, lr=0.05):
        self.make, self.n_nodes, self.features, self.epochs, self.lr = make, n_nodes, features, epochs, lr
        self.images, self.labels = torch.as_tensor(images, dtype=torch.float32), torch.as_tensor(labels)

    def load_data(self, partition_id):
        return self.images[partition_id :: self.n_nodes], self.labels[partition_id :: self.n_nodes]

    def client(self):
        app = ClientApp()

        @app.train()
        def train(msg: Message, context: Context):
            model = self.make()
            model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
            images, labels = self.load_data(context.node_config["partition-id"])
            optimizer = torch.optim.SGD(model.parameters(), lr=msg.content["config"]["lr"], momentum=0.9)
            model.train()
            for _ in range(self.epochs):
                optimizer.zero_grad()
                loss = nn.CrossEntropyLoss()(model(images), labels)
                loss.backward()
                optimizer.step()
            metrics = MetricRecord({"train_loss": loss.item(), "num-examples": len(images)})
            content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
            return Message(content=content, reply_to=msg)

        return answer(app, self.load)

    def load(self, context):
        i = context.node_config["partition-id"]
        images, labels = self.load_data(i)
        return Features(
            f"site {i}", (lambda arrays: self.features(arrays, images)) if self.features else images, labels
        )

    def run(self, n_rounds=5, configs=None, **options):
        app, kept = ServerApp(), []

        @app.main()
        def main(grid, context):  # noqa: ARG001  Flower's own signature
            torch.manual_seed(0)
            arrays = ArrayRecord(self.make().state_dict())
            strategy = Certified(FedAvg(fraction_evaluate=0.0), **{"n_nodes": self.n_nodes, **options})
            config = ConfigRecord({"lr": self.lr})
            result = strategy.start(grid=grid, initial_arrays=arrays, train_config=config, num_rounds=n_rounds)
            kept.extend([strategy.certificate, result])

        app(LocalGrid(self.client(), configs or nodes(self.n_nodes)), Context(1, 1, {}, RecordDict(), {}))
        return kept


def digits():
    X, y = load_digits(return_X_y=True)
    return X[:150].reshape(-1, 1, 8, 8) / 16, y[:150]


def body(arrays, images):
    """What a user writes: the layers before the last one."""
    net = Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    net.fc3 = nn.Identity()
    return net.eval()(images)
