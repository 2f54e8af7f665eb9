"""Your own network, end to end: compile, serve, query, compare.

    python examples/own_network.py

A small residual CNN with average pooling, batch norm, SiLU and ReLU, trained for a moment on
scikit-learn's digits. The activations are replaced by polynomials when it is compiled.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import he_infer
from he_infer import SecretKeys, datasets
from he_infer.activations import approx
from he_infer.client.client import Client
from he_infer.compiler.pipeline import Approximation
from he_infer.server import BackgroundServer


class ResidualNet(nn.Module):
    """(B, 1, 8, 8) pixels → (B, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.SiLU())
        self.pool = nn.AvgPool2d(2)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.act = nn.ReLU()
        self.head = nn.Linear(4 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        x = self.act(x + self.block(x))
        logits: Tensor = self.head(x.flatten(1))
        return logits


def train(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss: Tensor = nn.functional.cross_entropy(network(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()


def main(records: int = 20) -> float:
    """Answer ``records`` test images under encryption; returns the label agreement."""
    torch.manual_seed(0)
    train_set, test_set = datasets.digits()
    images = train_set.inputs().reshape(-1, 1, 8, 8)
    network = ResidualNet()
    train(network, torch.from_numpy(images), torch.from_numpy(train_set.labels))

    plan = he_infer.compile(
        network,
        images[:500],
        name="residual",
        approximation=Approximation(method=approx.least_squares, degree=3),
    )
    report = he_infer.compile_report(
        plan, images[500:700], rng=np.random.default_rng(0), model=network
    )
    print(report.text(), end="\n\n")

    queries = test_set.inputs().reshape(-1, 1, 8, 8)[:records]
    with BackgroundServer.of_plans([plan]) as server:
        keys = SecretKeys.generate(plan.params)
        with Client.connect(server.url, model="residual", keys=keys) as client:
            answers = [client.predict(query[None]) for query in queries]
    with torch.no_grad():
        expected = network(torch.from_numpy(queries)).argmax(dim=1).numpy()
    got = np.array([answer.labels[0] for answer in answers])
    agreement = float((got == expected).mean())
    print(f"encrypted answers agree with the original network on {100 * agreement:.0f} %")
    return agreement


if __name__ == "__main__":
    main()
