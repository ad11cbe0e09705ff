"""What a rank trains of the experiment `digits`, as a user of LocalSGD would; test_digits.py starts the ranks."""

from __future__ import annotations

import torch
from torch import nn

from localgd import torch_processes
from localgd.experiments.digits_setting import BATCH, IID, MOMENTUM, digits
from localgd.experiments.digits_training import OUTER, batches, network, scores, trained
from localgd.nets import LocalSGD

STEPS, LR = 40, 0.05


def beside(rank, held, name, sync_every):
    """Train on four ranks, and in one process; return how far models, drift and bytes are apart."""
    model = network(held.seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    x, y = torch.from_numpy(held.x[rank])[:, None], torch.from_numpy(held.y[rank])
    with LocalSGD(model, optimizer, sync_every=sync_every, outer=OUTER[name]) as local:
        for rows in batches(len(y), STEPS, [held.seed, 0, rank]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            local.step(BATCH)
    here = trained(held, lr=LR, steps=STEPS, outer=OUTER[name], sync_every=sync_every).end
    with torch.no_grad():
        images = torch.from_numpy(held.x_test)
        theirs = model(images[:, None])
        alone = scores(nn.utils.parameters_to_vector(model.parameters())[None], images[None])[0]
    assert (alone - theirs).abs().max() <= 1e-4, "one network is the other"
    assert (theirs.argmax(1).numpy() != here.predicted).mean() <= 0.0025, "one digit in 400, on a tie"
    parameters = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert (parameters - here.parameters).norm() <= 1e-4 * parameters.norm()
    if sync_every > 1:
        assert abs(local.history[-1].relative - here.drift) <= 1e-3 * here.drift
    sent = sum(sync.bytes_up for sync in local.history)
    assert here.bytes_up < sent <= 1.05 * here.bytes_up, "a header comes with every sync"
    assert len(local.history) == here.syncs


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch_processes() as (own, world):
        data = digits(IID, seed=5)
        assert world == len(data.x)
        for case in (("average", 1), ("average", 5), ("SlowMo", 10), ("DiLoCo", 10)):
            beside(own, data, *case)
