"""The training loop: bfloat16 on the CPU or the GPU, one cosine of learning rate, a running mean of the weights."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from scripts.phantoms import BATCHES_PER_PHANTOM
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

PEAK_LEARNING_RATE = 2e-3
# Weights that are there already are changed with less haste.
TUNING_RATE = 7e-4
REPORT_EVERY = 50
# What is written is the running mean of about the last hundred steps' weights: steadier than any one of them.
KEEP_OF_MEAN = 0.99


def fit(
    network: torch.nn.Module,
    loss: torch.nn.Module,
    data: Dataset,
    device: torch.device,
    workers: int,
    initial: str,
    weights: str,
) -> None:
    """Train ``network`` on ``data`` and write its weights (float16, a plain state dict) to ``weights``.

    ``initial`` names weights to start from; empty starts from nothing.
    """
    torch.manual_seed(data.seed)  # type: ignore[attr-defined]
    if initial:
        network.load_state_dict(torch.load(initial, weights_only=True))
    net = network.to(device, memory_format=torch.channels_last_3d).train()
    peak = TUNING_RATE if initial else PEAK_LEARNING_RATE
    mean = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(KEEP_OF_MEAN))
    steps = len(data) * BATCHES_PER_PHANTOM  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(net.parameters(), peak, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps + 1, pct_start=0.1)
    started, running = time.monotonic(), 0.0
    loader = DataLoader(data, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None)
    step = 0
    for batches in loader:
        for image, label in batches:
            running += _step(net, loss, optimiser, image.to(device), label.to(device))
            schedule.step()
            mean.update_parameters(net)
            step += 1
            if step % REPORT_EVERY == 0:
                print(f"step {step}/{steps} loss {running / REPORT_EVERY:.3f} {time.monotonic() - started:.0f} s", flush=True)
                running = 0.0
                save(mean.module, weights)
    save(mean.module, weights)


def _step(
    net: torch.nn.Module,
    loss: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    image: torch.Tensor,
    label: torch.Tensor,
) -> float:
    image = image.to(memory_format=torch.channels_last_3d)
    with torch.autocast(image.device.type, dtype=torch.bfloat16):
        logits = net(image)
    value = loss(logits.float(), label)
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimiser.step()
    return float(value.detach())


def save(net: torch.nn.Module, weights: str) -> None:
    """Write the state dict with floating point tensors as float16: half the size, no measurable loss."""
    state = {k: v.detach().cpu().half() if v.is_floating_point() else v.cpu() for k, v in net.state_dict().items()}
    Path(weights).parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, weights)
