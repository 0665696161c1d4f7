# SPDX-License-Identifier: BSD-3-Clause
"""Training scripts as people write them for torch's loader, with only its import changed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

CHARACTER_GPT = """
import random, string
from pathlib import Path
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

class Characters(Dataset):
    def __init__(self, block):
        self.text = Path(string.__file__).read_text()[:4_000]
        self.block = block
        self.numbers = {sign: number for number, sign in enumerate(sorted(set(self.text)))}

    def __len__(self):
        return len(self.text) - self.block

    def __getitem__(self, index):
        chunk = [self.numbers[sign] for sign in self.text[index : index + self.block + 1]]
        return torch.tensor(chunk[:-1]), torch.tensor(chunk[1:])

torch.manual_seed(1)
dataset = Characters(16)

class Model(nn.Module):
    def __init__(self, signs, width=32):
        super().__init__()
        self.tokens, self.places = nn.Embedding(signs, width), nn.Embedding(16, width)
        self.block = nn.TransformerEncoderLayer(width, 2, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, signs)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.block(self.tokens(x) + self.places(torch.arange(x.shape[1])), mask))

model = Model(len(dataset.numbers))
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
loader = DataLoader(dataset, batch_size=64, shuffle=True, drop_last=True)
losses = []
for epoch in range(2):
    for step, (x, y) in enumerate(loader):
        logits = model(x)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step == 15:
            break
"""

AUTOENCODER = """
import io
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn
from torch.utils.data import DataLoader, Dataset, random_split

class Patches(Dataset):
    def __init__(self):
        file = io.BytesIO()
        Image.fromarray(load_sample_image("china.jpg")).save(file, "JPEG")
        self.jpeg = file.getvalue()

    def __len__(self):
        return 96

    def __getitem__(self, index):
        photo = Image.open(io.BytesIO(self.jpeg)).convert("L")
        row, column = divmod(index, 12)
        patch = photo.crop((column * 50, row * 45, column * 50 + 32, row * 45 + 32))
        return np.asarray(patch, dtype=np.float32)[None] / 255

torch.manual_seed(2)
train, check = random_split(Patches(), [80, 16], torch.Generator().manual_seed(3))
loaders = {
    "train": DataLoader(train, 16, shuffle=True, pin_memory=torch.cuda.is_available()),
    "check": DataLoader(check, 16),
}
model = nn.Sequential(
    nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 1024), nn.Unflatten(1, (1, 32, 32))
)
optimizer = torch.optim.Adam(model.parameters(), 1e-3)
losses = []
for epoch in range(3):
    for phase, loader in loaders.items():
        model.train(phase == "train")
        total = 0.0
        for x in loader:
            loss = nn.functional.mse_loss(model(x), x)
            if phase == "train":
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            total += loss.item() * len(x)
        losses.append(total / len(loader.dataset))
"""

CNN = """
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

digits = load_digits()
labels = torch.tensor(digits.target[:300])
dataset = TensorDataset(torch.tensor(digits.images[:300]).float()[:, None] / 16, labels)
torch.manual_seed(4)
sampler = WeightedRandomSampler(1.0 + labels, 160)
loader = DataLoader(dataset, 20, sampler=sampler, num_workers=0)
model = nn.Sequential(
    nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(),
    nn.Flatten(), nn.Linear(256, 10),
)
optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
losses = []
for epoch in range(3):
    for images, targets in loader:
        loss = nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
"""


def losses(script: str, module: str) -> list[float]:
    names: dict[str, Any] = {"__name__": "a_training_script"}
    text = script.replace(
        "from torch.utils.data import DataLoader",
        f"from {module} import DataLoader\nfrom torch.utils.data import DataLoader as _",
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        exec(compile(text, "script", "exec"), names)
    finally:
        torch.set_num_threads(threads)
    found: list[float] = names["losses"]
    names.clear()  # its functions and it are a circle, which keeps the loaders and their workers
    return found


@pytest.mark.parametrize("script", [CHARACTER_GPT, AUTOENCODER, CNN], ids=["gpt", "auto", "cnn"])
def test_the_losses_are_those_of_torchs_loader(script: str) -> None:
    if "sklearn" in script:
        pytest.importorskip("sklearn")
        pytest.importorskip("PIL")
    ours, theirs = losses(script, "teamster.data"), losses(script, "torch.utils.data")
    assert ours == theirs
    assert ours[-1] < ours[0]
