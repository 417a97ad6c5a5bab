"""Benchmarks a training step and a serving pass against plain implementations of SASRec.

Training:

    ours              draws negatives, encodes distinct titles from text and id, packed windows, attention with time
                      bias, horizons, sampled softmax, AdamW and row-wise Adagrad
    SASRec, full      padded windows, an embedding table, `nn.TransformerEncoder`, cross-entropy over all titles, Adam
    SASRec, sampled   the same with one positive and as many shared negatives as ours, without logQ correction
    RecTools          its SASRec in its own training loop, over all titles or with as many negatives as ours per
                      position; only if `--rectools PYTHON` or RECTOOLS_PYTHON names an interpreter that has
                      `rectools[torch]`. RecTools needs NumPy 1, so it needs an environment of its own.

Throughput counts real positions, not padding. Serving: each user's hidden state, and its products with all titles.

    python -m benchmarks.training
"""

import argparse
import os
import subprocess
import time
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from benchmarks.runner import Row, Work, compare_memory, compare_times, save_results, time_variants
from model.sequence.network import Network, TitleInputs, Windows, encode_events, encode_titles, encode_users
from model.sequence.objective import train_step
from model.sequence.optimizers import Optimizers, RowwiseAdagrad
from model.settings import NetworkSettings, ObjectiveSettings, OptimSettings

TITLES: Final = 10_000
HISTORY: Final = 100
WIDTH: Final = 64
BLOCKS: Final = 2
HEADS: Final = 2
NEGATIVES: Final = 512
LIST_SIZE: Final = 100
ACTION_CODES: Final = 9  # of the random windows
MAX_EVENT_GAP_MS: Final = 30_000_000  # some eight hours
TRAIN_WINDOWS: Final = 32
SERVE_WINDOWS: Final = 256


def zipf_windows(count: int, min_length: int) -> Windows:
    """Windows of Zipf-distributed titles with an event every few hours, of `min_length` to HISTORY events."""
    g = torch.Generator().manual_seed(1)
    weight_V = 1 / torch.arange(1, TITLES + 1).double()
    title_BL = torch.multinomial(weight_V, count * HISTORY, replacement=True, generator=g).view(count, HISTORY)
    time_BL = torch.randint(0, MAX_EVENT_GAP_MS, (count, HISTORY), generator=g).cumsum(1) + 10**12
    length_B = torch.randint(min_length, HISTORY + 1, (count,), generator=g)
    return Windows(title_BL, title_BL % ACTION_CODES + 1, time_BL, torch.ones(count, HISTORY), length_B)


def new_network() -> tuple[Network, Optimizers, TitleInputs]:
    """An untrained network with optimizers and the inputs of all titles."""
    g = torch.Generator().manual_seed(2)
    network, settings = Network(NetworkSettings(width=WIDTH, blocks=BLOCKS, max_history=HISTORY)), OptimSettings()
    rows = RowwiseAdagrad(TITLES, network.settings.d_id, settings, g)
    semantic_VE = normalize(torch.randn(TITLES, network.settings.d_text, generator=g))
    count_V = torch.randint(0, 50, (TITLES,), generator=g).float()
    titles = TitleInputs(semantic_VE, rows.table_VI, count_V, torch.arange(TITLES), count_V)
    return network, Optimizers(network, rows, settings), titles


def our_step(windows: Windows) -> Work:
    """A training step of this project."""
    network, optimizers, titles = new_network()
    settings, draws = ObjectiveSettings(negatives=NEGATIVES), torch.Generator().manual_seed(4)
    return lambda: train_step(network, optimizers, titles, windows, settings, draws)


class SasRec(nn.Module):
    """Self-attentive sequential recommendation (arXiv 1808.09781) with PyTorch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.title = nn.Embedding(TITLES + 1, WIDTH, padding_idx=TITLES)
        self.position = nn.Embedding(HISTORY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, BLOCKS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(HISTORY - 1))

    def forward(self, title_BL: Tensor) -> Tensor:
        x_BLD = self.title(title_BL) + self.position.weight[: title_BL.shape[1]]
        hidden_BLD: Tensor = self.encoder(x_BLD, mask=self.mask, is_causal=True)
        return hidden_BLD


def sasrec_step(windows: Windows, negatives: int | None) -> Work:
    """A training step of SASRec: over all titles, or over the positive and shared negatives."""
    model = SasRec()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    inside_BL = torch.arange(HISTORY) < windows.length_B[:, None]
    title_BL = windows.title_BL.where(inside_BL, TITLES)
    target_N = title_BL[:, 1:][inside_BL[:, 1:]]

    def step() -> Tensor:
        hidden_ND = model(title_BL[:, :-1])[inside_BL[:, 1:]]
        if negatives is None:
            loss = cross_entropy(hidden_ND @ model.title.weight[:TITLES].T, target_N)
        else:
            negative_S = torch.randint(TITLES, (negatives,))
            logit_NS = hidden_ND @ model.title(negative_S).T
            logit_NS = logit_NS.masked_fill(negative_S == target_N[:, None], float("-inf"))
            positive_N1 = (hidden_ND * model.title(target_N)).sum(1, keepdim=True)
            loss = cross_entropy(torch.cat([positive_N1, logit_NS], 1), torch.zeros_like(target_N))
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
        return loss.detach()

    return step


class RecToolsProcess:
    """RecTools in another process (`benchmarks/rectools_step.py`); each call makes it take one training step."""

    cpu_seconds = 0.0  # CPU time of the steps of all such processes

    def __init__(self, python: str, batch: int, negatives: int) -> None:
        self.python, script = python, Path(__file__).with_name("rectools_step.py")
        sizes = map(str, (TITLES, HISTORY, WIDTH, BLOCKS, batch, negatives))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([python, str(script), *sizes], text=True, **pipes)  # type: ignore[call-overload]

    def __call__(self) -> None:
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(
                f"{self.python} cannot run RecTools: install it with `{self.python} -m pip install 'rectools[torch]'`."
            )
        RecToolsProcess.cpu_seconds += float(answer)


def cpu_clock() -> float:
    """CPU seconds of this process and of RecTools' steps, which other processes do not affect."""
    return time.process_time() + RecToolsProcess.cpu_seconds


def measure_training(case: str, windows: Windows, rounds: int, others: dict[str, Work] | None = None) -> list[Row]:
    """Positions per second, and memory of the variants that run in this process."""
    variants = {
        "ours": our_step(windows),
        "SASRec, full": sasrec_step(windows, None),
        "SASRec, sampled": sasrec_step(windows, NEGATIVES),
    }
    positions = int(windows.length_B.sum())
    cpu_time = torch.get_num_threads() == 1
    seconds = time_variants(variants | (others or {}), rounds, clock=cpu_clock if cpu_time else time.perf_counter)
    unit = "positions/CPU s" if cpu_time else "positions/s"
    return compare_times(case, seconds, "ours", unit, positions) + compare_memory(case, variants, "ours")


def measure_serving(case: str, windows: Windows, rounds: int) -> list[Row]:
    """Users per second: a pass for the last token only, the same for every token, and the products with all titles."""
    network, _, titles = new_network()
    tower_VD, e_VP = encode_titles(network, titles)
    now_B, last_B = windows.time_BL[:, -1] + 60_000, windows.length_B - 1
    all_users = torch.arange(len(windows))
    hidden_BD = encode_users(network, tower_VD, windows, now_B)

    def rank_all_horizons() -> None:
        for horizon in range(len(network.settings.horizons)):
            query_BP = network.query(hidden_BD, torch.full((len(windows),), horizon))
            (query_BP @ e_VP.T).topk(LIST_SIZE)

    variants: dict[str, Work] = {
        "encode": lambda: encode_users(network, tower_VD, windows, now_B),
        "encode every token": lambda: encode_events(network, tower_VD, windows, all_users, last_B),
        f"all horizons, top {LIST_SIZE}": rank_all_horizons,
    }
    cpu_time = torch.get_num_threads() == 1
    with torch.no_grad():
        seconds = time_variants(variants, rounds, clock=time.process_time if cpu_time else time.perf_counter)
    return compare_times(case, seconds, "encode", "users/CPU s" if cpu_time else "users/s", len(windows))


def main() -> None:
    """Measure and save the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 15")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--rectools", metavar="PYTHON", default=os.environ.get("RECTOOLS_PYTHON"), help="interpreter that has RecTools"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    rounds = 3 if options.quick else 15
    others: dict[str, Work] = {}
    if options.rectools:
        for name, negatives in (("RecTools, full", 0), ("RecTools, sampled", NEGATIVES)):
            others[name] = RecToolsProcess(options.rectools, TRAIN_WINDOWS, negatives)
    else:
        print("Skipping RecTools: --rectools gives no interpreter that has it.")
    rows = measure_training("train, full windows", zipf_windows(TRAIN_WINDOWS, HISTORY), rounds, others)
    rows += measure_training("train, any length", zipf_windows(TRAIN_WINDOWS, 1), rounds)
    rows += measure_serving("serve, full windows", zipf_windows(SERVE_WINDOWS, HISTORY), rounds)
    save_results("training", rows)


if __name__ == "__main__":
    main()
