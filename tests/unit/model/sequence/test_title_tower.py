"""The title tower: text, id and evidence."""

import torch
from torch import Tensor
from torch.nn.functional import silu

from model.sequence.title_tower import TitleTower

TEXT, ID, WIDTH, EVIDENCE = 7, 5, 6, 3.0


def a_tower() -> TitleTower:
    torch.manual_seed(1)
    tower = TitleTower(TEXT, ID, WIDTH, EVIDENCE)
    with torch.no_grad():
        for p in tower.parameters():
            p.normal_()
    return tower


def titles(n: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    semantic_VS = torch.randn(n, TEXT, generator=g)
    semantic_VS[3] = 0.0  # no text
    return semantic_VS, torch.randn(n, ID, generator=g), torch.arange(n).float()


def test_a_vector_is_text_plus_gated_id_plus_what_they_say_together_plus_popularity() -> None:
    tower, (semantic_VS, id_VE, count_V) = a_tower(), titles()
    got_VD = tower(semantic_VS, id_VE, count_V)
    for v in range(9):
        text_D = tower.text_out.weight @ silu(tower.text.weight @ (semantic_VS[v] * TEXT**0.5) + tower.text.bias)
        if v == 3:
            text_D = tower.no_text
        gate = v / (v + EVIDENCE)
        id_D = gate * (tower.id.weight @ id_VE[v]) + (1 - gate) * tower.oov
        both_D = tower.mix_out.weight @ silu(tower.mix.weight @ torch.cat([id_D, text_D]) + tower.mix.bias)
        popular_D = torch.log1p(torch.tensor(float(v))) * tower.popular
        torch.testing.assert_close(got_VD[v], id_D + text_D + both_D + popular_D, rtol=1e-4, atol=1e-4)


def test_an_id_without_evidence_is_the_oov_vector_whatever_its_row_holds() -> None:
    tower, (semantic_VS, id_VE, _) = a_tower(), titles()
    none_V = torch.zeros(9)
    unknown_VD = tower(semantic_VS, id_VE, none_V)
    assert torch.equal(unknown_VD, tower(semantic_VS, id_VE * 100 + 1, none_V))
    torch.testing.assert_close(unknown_VD, tower(semantic_VS, None, none_V))


def test_titles_without_text_differ_by_their_ids_alone() -> None:
    tower, (semantic_VS, id_VE, _) = a_tower(), titles()
    count_V = torch.full((9,), 4.0)
    blank_VD = tower(torch.zeros_like(semantic_VS), id_VE, count_V)
    assert not torch.equal(blank_VD[0], blank_VD[1])
    id_VE[1] = id_VE[0]
    alike_VD = tower(torch.zeros_like(semantic_VS), id_VE, count_V)
    torch.testing.assert_close(alike_VD[0], alike_VD[1])


def test_a_batch_of_titles_equals_each_alone() -> None:
    tower, (semantic_VS, id_VE, count_V) = a_tower(), titles()
    all_VD = tower(semantic_VS, id_VE, count_V)
    each_VD = torch.cat([tower(semantic_VS[v : v + 1], id_VE[v : v + 1], count_V[v : v + 1]) for v in range(9)])
    torch.testing.assert_close(all_VD, each_VD)
