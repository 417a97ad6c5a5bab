"""The title tower: text embedding, id embedding and evidence gate."""

import torch
from torch import Tensor
from torch.nn.functional import silu

from model.sequence.title_tower import TitleTower

TEXT, ID, WIDTH, EVIDENCE = 7, 5, 6, 3.0


def make_tower() -> TitleTower:
    torch.manual_seed(1)
    tower = TitleTower(TEXT, ID, WIDTH, EVIDENCE)
    with torch.no_grad():
        for p in tower.parameters():
            p.normal_()
    return tower


def titles(n: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    semantic_VE = torch.randn(n, TEXT, generator=g)
    semantic_VE[3] = 0.0  # no text
    return semantic_VE, torch.randn(n, ID, generator=g), torch.arange(n).float()


def test_title_vector_equals_formula() -> None:
    tower, (semantic_VE, id_VI, count_V) = make_tower(), titles()
    got_VD = tower(semantic_VE, id_VI, count_V)
    for v in range(9):
        text_D = tower.text_out.weight @ silu(tower.text.weight @ (semantic_VE[v] * TEXT**0.5) + tower.text.bias)
        if v == 3:
            text_D = tower.no_text
        gate = v / (v + EVIDENCE)
        id_D = gate * (tower.id.weight @ id_VI[v]) + (1 - gate) * tower.oov
        both_D = tower.mix_out.weight @ silu(tower.mix.weight @ torch.cat([id_D, text_D]) + tower.mix.bias)
        popular_D = torch.log1p(torch.tensor(float(v))) * tower.popularity
        torch.testing.assert_close(got_VD[v], id_D + text_D + both_D + popular_D, rtol=1e-4, atol=1e-4)


def test_id_without_evidence_is_the_oov_vector() -> None:
    tower, (semantic_VE, id_VI, _) = make_tower(), titles()
    none_V = torch.zeros(9)
    unknown_VD = tower(semantic_VE, id_VI, none_V)
    assert torch.equal(unknown_VD, tower(semantic_VE, id_VI * 100 + 1, none_V))
    torch.testing.assert_close(unknown_VD, tower(semantic_VE, None, none_V))


def test_titles_without_text_differ_only_by_id() -> None:
    tower, (semantic_VE, id_VI, _) = make_tower(), titles()
    count_V = torch.full((9,), 4.0)
    no_text_VD = tower(torch.zeros_like(semantic_VE), id_VI, count_V)
    assert not torch.equal(no_text_VD[0], no_text_VD[1])
    id_VI[1] = id_VI[0]
    equal_ids_VD = tower(torch.zeros_like(semantic_VE), id_VI, count_V)
    torch.testing.assert_close(equal_ids_VD[0], equal_ids_VD[1])


def test_batch_of_titles_equals_single_titles() -> None:
    tower, (semantic_VE, id_VI, count_V) = make_tower(), titles()
    all_VD = tower(semantic_VE, id_VI, count_V)
    each_VD = torch.cat([tower(semantic_VE[v : v + 1], id_VI[v : v + 1], count_V[v : v + 1]) for v in range(9)])
    torch.testing.assert_close(all_VD, each_VD)
