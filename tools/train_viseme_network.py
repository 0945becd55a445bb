"""Train the viseme network on the speech of ``tools.speech_corpus`` and export it for NumPy inference.

    python -m tools.train_viseme_network --corpus corpus --minutes 35

Needs PyTorch and one core. Checkpoints are exported every few minutes, so that a stopped run leaves a usable network.

The network is a stack of causal dilated convolutions (van den Oord et al., "WaveNet", 2016, without gates; Bai et al.,
"An empirical evaluation of generic convolutional and recurrent networks for sequence modeling", 2018) over log-mel
frames at 50 Hz, with one classifier per look-ahead: head h says, from sound up to time E, which viseme is at E - h.
All heads are trained together, so that at any moment the driver also has a first guess about the newest sound.

Only few, synthetic voices are heard in training, so augmentation makes them many: warped mel scale (vocal tract),
formants moved and blurred, speed, level, equalisation, bandwidth, reverberation, noise, other voices behind, dropped
bands, breaths and clicks in the pauses; and the network forgets a tenth of its channels (dropout).
"""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from safetensors.numpy import save_file
from torch import Tensor, nn

from being_rt.audio.features import BANDS, FFT_SIZE, HOP, LOG_FLOOR, WINDOW, hann_window, mel_filterbank
from being_rt.files import read_npz
from being_rt.motion.visemes import INDEX, VISEMES

WARPS = (0.84, 0.9, 0.95, 1.0, 1.05, 1.1, 1.17)
LOOK_AHEAD_MS = (0, 20, 40, 60, 80, 100)
DILATIONS = (1, 2, 4, 1, 2, 4, 8)
CHANNELS = 128
BATCH, FRAMES = 32, 300  # 3 s of 10 ms frames
PEAK_RATE = 3e-3
DROPOUT = 0.1
REFERENCE_RMS = 0.08  # every utterance is brought to this level before augmentation
# How often each group is drawn, relative: recorded voices matter most, espeak adds accents and speeds.
GROUP_WEIGHTS = {
    "espeak": 0.25,
    "flite-slt": 0.2,
    "flite-rms": 0.2,
    "flite-awb": 0.2,
    "flite-kal16": 0.07,
    "festival-slt-hts": 0.08,
}
# Lip closures are short and the most visible of all errors.
CLASS_WEIGHTS = {"PP": 1.5, "FF": 1.5, "ou": 1.2, "oh": 1.2}


class CausalBlock(nn.Module):
    """x + relu(norm(conv(x))), the convolution of width 3 seeing the past alone."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.convolution = nn.Conv1d(channels, channels, 3, dilation=dilation, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm(self.convolution(functional.pad(x, (2 * self.dilation, 0)))))
        return x + functional.dropout1d(y, DROPOUT, self.training)


class VisemeNet(nn.Module):
    """Log-mel frames [B, T, 40] at 100 Hz -> viseme logits [B, heads, 15, T // 2] at 50 Hz."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Conv1d(2 * BANDS, CHANNELS, 1, bias=False)
        self.norm = nn.BatchNorm1d(CHANNELS)
        self.blocks = nn.ModuleList([CausalBlock(CHANNELS, d) for d in DILATIONS])
        self.heads = nn.Conv1d(CHANNELS, len(VISEMES) * len(LOOK_AHEAD_MS), 1)

    def forward(self, log_mel: Tensor) -> Tensor:
        batch, frames, _ = log_mel.shape
        pairs = ((log_mel[:, : frames // 2 * 2] + 6) / 4).reshape(batch, frames // 2, 2 * BANDS).transpose(1, 2)
        x = functional.relu(self.norm(self.input(pairs)))
        for block in self.blocks:
            x = block(x)
        return self.heads(x).view(batch, len(LOOK_AHEAD_MS), len(VISEMES), -1)


def power_spectrum(pcm: Tensor) -> Tensor:
    """Frames of 25 ms every 10 ms, each ending at the end of its hop: [N] -> [N // 160, 257]."""
    frames = functional.pad(pcm, (WINDOW - HOP, 0)).unfold(0, WINDOW, HOP) * torch.from_numpy(hann_window())
    return torch.fft.rfft(frames, FFT_SIZE).abs() ** 2


@dataclass
class Group:
    """Band powers of one voice group for every warp, float16 logarithms [N, warps, 40], and labels [N]."""

    log_power: Tensor
    labels: Tensor


def load_group(path: Path) -> Group:
    """Read one corpus file; every utterance is normalised to `REFERENCE_RMS`."""
    data = read_npz(path)
    pcm, labels, lengths = data["pcm"], data["labels"], data["lengths"]
    filters = torch.cat([torch.from_numpy(mel_filterbank(warp)) for warp in WARPS], 1)
    parts, start = [], 0
    for length in lengths:
        utterance = torch.from_numpy(pcm[start * HOP : (start + length) * HOP].astype(np.float32) / 32768)
        utterance *= REFERENCE_RMS / (utterance.std() + 1e-4)
        parts.append(torch.log(power_spectrum(utterance) @ filters + 1e-9).half().view(-1, len(WARPS), BANDS))
        start += length
    return Group(torch.cat(parts), torch.from_numpy(labels.astype(np.int64)))


def draw_batch(groups: list[Group], weights: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Band powers [B, 300, 40] at random speed, and labels [B, 301] (one more than the frames need)."""
    powers, labels = [], []
    for choice in rng.choice(len(groups), BATCH, p=weights):
        group = groups[choice]
        frames = (np.arange(FRAMES + 1) * rng.uniform(0.85, 1.2)).astype(np.int64)
        frames = torch.from_numpy(frames + int(rng.integers(0, len(group.labels) - frames[-1])))
        powers.append(group.log_power[frames[:-1], int(rng.integers(len(WARPS)))])
        labels.append(group.labels[frames])
    return torch.stack(powers).float().exp(), torch.stack(labels)


def uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform float32 random numbers."""
    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))


def other_formants(log_power: Tensor, rng: np.random.Generator) -> Tensor:
    """Move every region of the spectrum by up to 1.5 bands, smoothly and differently per utterance, and blur it."""
    batch, _, bands = log_power.shape
    shift = functional.interpolate(uniform(rng, -1.5, 1.5, batch, 1, 5), size=bands, mode="linear", align_corners=True)
    position = (torch.arange(bands) + shift).clamp(0, bands - 1.001)  # [B, 1, bands]
    below = position.long().expand_as(log_power)
    fraction = position - position.floor()
    moved = log_power.gather(2, below) * (1 - fraction) + log_power.gather(2, below + 1) * fraction
    padded = functional.pad(moved, (1, 1), "replicate")
    blur = uniform(rng, 0, 0.3, batch, 1, 1)
    return (1 - blur) * moved + blur * 0.5 * (padded[..., :-2] + padded[..., 2:])


def augment(power: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Make recordings out of clean synthesis: [B, T, 40] band powers -> log-mel features, and the labels to go."""
    batch, frames, bands = power.shape
    power = other_formants(power.log(), rng).exp()
    for b in range(batch):
        if rng.random() < 0.12:  # a longer pause than synthesis makes
            begin, length = int(rng.integers(0, frames)), int(rng.integers(20, 150))
            power[b, begin : begin + length] = 1e-7
            labels[b, begin : begin + length] = INDEX["sil"]
    if rng.random() < 0.4:  # exponential late reverberation, in the power domain
        decay, share = uniform(rng, 0.6, 0.88, batch, 1), uniform(rng, 0.0, 0.3, batch, 1, 1)
        tail, tails = torch.zeros(batch, bands), []
        for t in range(frames):
            tail = tail * decay + power[:, t]
            tails.append(tail)
        power = power * (1 - share) + share * torch.stack(tails, 1)
    level = power.mean((1, 2), keepdim=True)
    if rng.random() < 0.1:  # another voice behind
        power = power + power.roll(1, 0) * 10 ** (-uniform(rng, 8, 30, batch, 1, 1) / 10)
    if rng.random() < 0.4:  # breaths, clicks and rustle where nobody speaks
        silent = (labels[:, :frames] == INDEX["sil"]).float()[..., None]
        shape = functional.interpolate(2 * torch.randn(batch, 1, frames // 12), size=frames, mode="linear")
        colour = functional.interpolate(torch.randn(batch, 1, 6) * 1.5, size=bands, mode="linear")[:, 0, None]
        loudness = uniform(rng, -7, -2.5, batch, 1, 1)
        power = power + silent * level * torch.exp(shape[:, 0, :, None] + colour + loudness)
    if rng.random() < 0.85:  # steady coloured noise, 3 to 45 dB below the speech
        tilt = torch.exp(torch.linspace(0, 1, bands) * uniform(rng, -5, 1, batch, 1, 1))
        noise = tilt / tilt.mean(-1, keepdim=True) * torch.exp(0.35 * torch.randn(power.shape))
        power = power + level * 10 ** (-uniform(rng, 3, 45, batch, 1, 1) / 10) * noise
    if rng.random() < 0.15:  # telephone and codec bandwidth
        cut = torch.from_numpy(rng.integers(24, bands, (batch, 1, 1)))
        power = torch.where(torch.arange(bands) >= cut, power * 1e-5, power)
    features = torch.log(power * 10 ** (uniform(rng, -15, 11, batch, 1, 1) / 10) + LOG_FLOOR)
    equaliser = functional.interpolate(torch.randn(batch, 1, 6) * 1.6, size=bands, mode="linear", align_corners=True)
    features = features + equaliser[:, 0, None]
    if rng.random() < 0.3:  # dropped bands
        first, width = int(rng.integers(0, bands - 6)), int(rng.integers(2, 7))
        features[:, :, first : first + width] = features.mean()
    return features, labels


def targets(labels: Tensor, look_ahead_ms: int) -> Tensor:
    """Soft labels [B, 15, steps] of one head: the mean of the two 10 ms labels that meet at step end - look-ahead."""
    ends = torch.arange(2, labels.shape[1], 2) - look_ahead_ms // 10
    one_hot = functional.one_hot(labels, len(VISEMES)).float()
    return (0.5 * (one_hot[:, (ends - 1).clamp(min=0)] + one_hot[:, ends.clamp(min=0)])).transpose(1, 2)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, label smoothing 0.05, mean over heads; the first 100 ms have no past and are left out."""
    weights = torch.tensor([CLASS_WEIGHTS.get(name, 1.0) for name in VISEMES])[:, None]
    total = torch.zeros(())
    for head, look_ahead in enumerate(LOOK_AHEAD_MS):
        wanted = targets(labels, look_ahead)[:, :, 5:]
        smooth = (0.95 * wanted + 0.05 / len(VISEMES)) * weights
        total = total - (smooth * functional.log_softmax(logits[:, head, :, 5:], 1)).sum(1).mean()
    return total / len(LOOK_AHEAD_MS)


def accuracy(net: VisemeNet, group: Group) -> dict[int, float]:
    """Share of 20 ms steps whose likeliest viseme is right, per look-ahead."""
    net.eval()
    with torch.no_grad():
        logits = net(torch.log(group.log_power[:, WARPS.index(1.0)].float().exp() + LOG_FLOOR)[None])
    result = {}
    for head, look_ahead in enumerate(LOOK_AHEAD_MS):
        wanted = targets(group.labels[None], look_ahead)
        guess = logits[:, head, :, : wanted.shape[2]].argmax(1)
        result[look_ahead] = wanted.gather(1, guess[:, None]).gt(0).float().mean().item()
    net.train()
    return result


def export(net: VisemeNet, path: Path, steps: int) -> None:
    """Fold the normalisation into the weights and write float16 safetensors: ``input``, ``block0``.. and ``head``.

    Weights are [taps * inputs, outputs], oldest tap first, so that a step is one product of a row with a matrix.
    """
    tensors: dict[str, np.ndarray] = {}

    def folded(name: str, convolution: nn.Conv1d, norm: nn.BatchNorm1d | None) -> None:
        weight = convolution.weight.detach()  # [out, in, taps]
        bias = torch.zeros(weight.shape[0]) if convolution.bias is None else convolution.bias.detach()
        if norm is not None:
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
            weight, bias = weight * scale[:, None, None], norm.bias.detach() - norm.running_mean * scale
        tensors[f"{name}.weight"] = weight.permute(2, 1, 0).reshape(-1, weight.shape[0]).half().contiguous().numpy()
        tensors[f"{name}.bias"] = bias.half().numpy()

    folded("input", net.input, net.norm)
    for i, block in enumerate(net.blocks):
        assert isinstance(block, CausalBlock)
        folded(f"block{i}", block.convolution, block.norm)
    folded("head", net.heads, None)
    metadata = {
        "format": "being_rt viseme network 1",
        "visemes": " ".join(VISEMES),
        "look_ahead_ms": " ".join(map(str, LOOK_AHEAD_MS)),
        "dilations": " ".join(map(str, DILATIONS)),
        "reference_rms": str(REFERENCE_RMS),
        "licence": "Apache-2.0",
        "training": f"{steps} steps, {steps * BATCH * FRAMES / 360000:.0f} hours of augmented speech",
    }
    partial = path.with_suffix(".part")
    save_file(tensors, partial, metadata)
    os.replace(partial, path)


def main() -> None:
    """Train for a given time and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("corpus"))
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--out", type=Path, default=Path("being_rt/motion/viseme_network.safetensors"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    names = [name for name in GROUP_WEIGHTS if (options.corpus / f"{name}.npz").exists()]
    groups = [load_group(options.corpus / f"{name}.npz") for name in names]
    tests = {path.stem: load_group(path) for path in sorted(options.corpus.glob("test-*.npz"))}
    weights = np.array([GROUP_WEIGHTS[name] for name in names])
    weights /= weights.sum()
    net, average = VisemeNet(), VisemeNet()
    average.load_state_dict(net.state_dict())
    print(f"{sum(p.numel() for p in net.parameters())} parameters, groups {names}", flush=True)
    optimizer = torch.optim.AdamW(net.parameters(), PEAK_RATE, weight_decay=1e-3)
    start, step, running, next_report = time.monotonic(), 0, 0.0, 2.0
    while (share := (time.monotonic() - start) / 60 / options.minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * share))
        power, labels = draw_batch(groups, weights, rng)
        features, labels = augment(power, labels, rng)
        loss = loss_of(net(features), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        step += 1
        running = loss.item() if step == 1 else 0.99 * running + 0.01 * loss.item()
        keep = min(0.998, step / (step + 20))  # weight averaging (Polyak), slow only once training is under way
        with torch.no_grad():
            for kept, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
                if kept.dtype.is_floating_point:
                    kept.lerp_(new, 1 - keep)
        if share * options.minutes > next_report or step == 20:
            next_report += 0 if step == 20 else 3.0
            scores = {name: accuracy(average, group) for name, group in tests.items()}
            shown = " ".join(f"{n} {s[0]:.3f}/{s[60]:.3f}/{s[100]:.3f}" for n, s in scores.items())
            print(f"{share * options.minutes:.1f} min, step {step}, loss {running:.3f}, {shown}", flush=True)
            export(average, options.out, step)
    scores = {name: accuracy(average, group) for name, group in tests.items()}
    export(average, options.out, step)
    print(f"done: {step} steps, loss {running:.3f}, accuracy per look-ahead {scores}", flush=True)


if __name__ == "__main__":
    main()
