"""A training step and a serving pass, per thread, beside what people write first; `python -m benchmarks.training`.

    ours              negatives drawn, titles made unique and encoded from text and id, packed windows, attention with
                      time, horizons, sampled softmax, AdamW, row-wise Adagrad
    SASRec, full      padded windows, an embedding table, `nn.TransformerEncoder`, cross-entropy over all titles, Adam
    SASRec, sampled   the same over one positive and as many shared negatives as ours, nothing corrected
    RecTools          its SASRec in its own loop, over all titles or as many negatives a position as ours; only where
                      `--rectools PYTHON` or RECTOOLS_PYTHON names an interpreter with `pip install rectools[torch]`:
                      it needs NumPy 1 and so an environment of its own

Real positions count, padding does not. Serving: the hidden state of each viewer and the products with all titles.
"""

import argparse
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from benchmarks.runner import Row, compare, compare_memory, in_turn, publish
from model.sequence.network import (
    Network,
    NetworkSettings,
    TitleInputs,
    Windows,
    encode_events,
    encode_users,
    title_table,
)
from model.sequence.objective import ObjectiveSettings, train_step
from model.sequence.optimizers import Optimisers, OptimSettings, RowwiseAdagrad

TITLES, HISTORY, WIDTH, BLOCKS, NEGATIVES = 10_000, 100, 64, 2, 512
Step = Callable[[], object]


def workload(many: int, shortest: int) -> Windows:
    """Zipf titles, an event every few hours, windows of `shortest` events and more."""
    g = torch.Generator().manual_seed(1)
    weight_V = 1 / torch.arange(1, TITLES + 1).double()
    title_BL = torch.multinomial(weight_V, many * HISTORY, replacement=True, generator=g).view(many, HISTORY)
    time_BL = torch.randint(0, 30_000_000, (many, HISTORY), generator=g).cumsum(1) + 10**12
    length_B = torch.randint(shortest, HISTORY + 1, (many,), generator=g)
    return Windows(title_BL, title_BL % 9 + 1, time_BL, torch.ones(many, HISTORY), length_B)


def learner() -> tuple[Network, Optimisers, TitleInputs]:
    g = torch.Generator().manual_seed(2)
    network, settings = Network(NetworkSettings(width=WIDTH, blocks=BLOCKS, history=HISTORY)), OptimSettings()
    rows = RowwiseAdagrad(TITLES, network.settings.d_id, settings, g)
    semantic_VS = normalize(torch.randn(TITLES, network.settings.d_text, generator=g))
    count_V = torch.randint(0, 50, (TITLES,), generator=g).float()
    titles = TitleInputs(semantic_VS, rows.table_VE, count_V, torch.arange(TITLES), count_V)
    return network, Optimisers(network, rows, settings), titles


def ours(windows: Windows) -> Step:
    network, optimisers, titles = learner()
    wanted, draws = ObjectiveSettings(negatives=NEGATIVES), torch.Generator().manual_seed(4)
    return lambda: train_step(network, optimisers, titles, windows, wanted, draws)


class Sasrec(nn.Module):
    """Self-attentive sequential recommendation (arXiv 1808.09781) with PyTorch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.title = nn.Embedding(TITLES + 1, WIDTH, padding_idx=TITLES)
        self.place = nn.Embedding(HISTORY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, BLOCKS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(HISTORY - 1))

    def forward(self, title_BL: Tensor) -> Tensor:
        x_BLD = self.title(title_BL) + self.place.weight[: title_BL.shape[1]]
        hidden_BLD: Tensor = self.encoder(x_BLD, mask=self.mask, is_causal=True)
        return hidden_BLD


def sasrec(windows: Windows, negatives: int | None) -> Step:
    """A step of the rival: over all titles, or over the positive and shared negatives."""
    model = Sasrec()
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    inside_BL = torch.arange(HISTORY) < windows.length_B[:, None]
    title_BL = windows.title_BL.where(inside_BL, TITLES)
    target_N = title_BL[:, 1:][inside_BL[:, 1:]]

    def step() -> None:
        hidden_ND = model(title_BL[:, :-1])[inside_BL[:, 1:]]
        if negatives is None:
            loss = cross_entropy(hidden_ND @ model.title.weight[:TITLES].T, target_N)
        else:
            drawn_J = torch.randint(TITLES, (negatives,))
            logit_NJ = hidden_ND @ model.title(drawn_J).T
            logit_NJ = logit_NJ.masked_fill(drawn_J == target_N[:, None], float("-inf"))
            positive_N1 = (hidden_ND * model.title(target_N)).sum(1, keepdim=True)
            loss = cross_entropy(torch.cat([positive_N1, logit_NJ], 1), torch.zeros_like(target_N))
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()

    return step


class Rectools:
    """RecTools in a process that waits for the word to take a step; `spent`: seconds that all of them worked."""

    spent = 0.0

    def __init__(self, python: str, batch: int, negatives: int) -> None:
        self.python, script = python, Path(__file__).with_name("rectools_step.py")
        sizes = map(str, (TITLES, HISTORY, WIDTH, BLOCKS, batch, negatives))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([python, str(script), *sizes], text=True, **pipes)  # type: ignore[call-overload]

    def __call__(self) -> None:
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        told = self.process.stdout.readline()
        if not told:
            raise SystemExit(
                f"{self.python} does not run RecTools: `{self.python} -m pip install 'rectools[torch]'` first."
            )
        Rectools.spent += float(told)


def worked() -> float:
    """Seconds that this process and RecTools' worked, so that neighbours on the machine do not count."""
    return time.process_time() + Rectools.spent


def train(case: str, windows: Windows, rounds: int, others: dict[str, Step] | None = None) -> list[Row]:
    variants = {
        "ours": ours(windows),
        "SASRec, full": sasrec(windows, None),
        "SASRec, sampled": sasrec(windows, NEGATIVES),
    }
    positions = int(windows.length_B.sum())
    alone = torch.get_num_threads() == 1
    seconds = in_turn(variants | (others or {}), rounds, clock=worked if alone else time.perf_counter)
    unit = "positions/CPU s" if alone else "positions/s"
    return compare(case, seconds, "ours", unit, positions) + compare_memory(case, variants, "ours")


def serve(case: str, windows: Windows, rounds: int) -> list[Row]:
    """Viewers a second: the pass that asks the last token only, beside one over all tokens, and the products."""
    network, _, titles = learner()
    tower_VD, e_VP = title_table(network, titles)
    now_B, last_B = windows.time_BL[:, -1] + 60_000, windows.length_B - 1
    everyone = torch.arange(len(windows))
    hidden_BD = encode_users(network, tower_VD, windows, now_B)

    def products() -> None:
        for horizon in range(len(network.settings.horizons)):
            query_BP = network.query(hidden_BD, torch.full((len(windows),), horizon))
            (query_BP @ e_VP.T).topk(100)

    variants: dict[str, Step] = {
        "encode": lambda: encode_users(network, tower_VD, windows, now_B),
        "encode every token": lambda: encode_events(network, tower_VD, windows, everyone, last_B),
        "all horizons, top 100": products,
    }
    alone = torch.get_num_threads() == 1
    with torch.no_grad():
        seconds = in_turn(variants, rounds, clock=time.process_time if alone else time.perf_counter)
    return compare(case, seconds, "encode", "viewers/CPU s" if alone else "viewers/s", len(windows))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="3 rounds instead of 15")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--rectools", metavar="PYTHON", default=os.environ.get("RECTOOLS_PYTHON"))
    chosen = options.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(chosen.threads)
    rounds = 3 if chosen.quick else 15
    others: dict[str, Step] = {}
    if chosen.rectools:
        for name, negatives in (("RecTools, full", 0), ("RecTools, sampled", NEGATIVES)):
            others[name] = Rectools(chosen.rectools, 32, negatives)
    else:
        print("RecTools is left out: --rectools names no Python that has it.")
    rows = [
        *train("train, full windows", workload(32, HISTORY), rounds, others),
        *train("train, any length", workload(32, 1), rounds),
    ]
    rows += [*serve("serve, full windows", workload(256, HISTORY), rounds)]
    publish("training", rows)
