"""The rivals of the training benchmark learn, and all variants get the same windows."""

import pytest
import torch

from benchmarks.training import HISTORY, TITLES, SasRec, sasrec_step, zipf_windows


def test_windows_are_reproducible_and_within_bounds() -> None:
    windows, again = zipf_windows(64, 5), zipf_windows(64, 5)
    assert torch.equal(windows.title_BL, again.title_BL)
    assert 5 <= int(windows.length_B.min()) < int(windows.length_B.max()) <= HISTORY
    assert 0 <= int(windows.title_BL.min()) < int(windows.title_BL.max()) < TITLES
    assert bool((windows.time_BL.diff(dim=1) >= 0).all())
    assert bool((zipf_windows(8, HISTORY).length_B == HISTORY).all())


def test_sasrec_does_not_see_later_titles() -> None:
    torch.manual_seed(0)
    model = SasRec().eval()
    title_BL = torch.randint(TITLES, (2, HISTORY - 1))
    changed_BL = title_BL.clone()
    changed_BL[:, 50:] = (changed_BL[:, 50:] + 1) % TITLES
    with torch.no_grad():
        before_BLD, after_BLD = model(title_BL), model(changed_BL)
    torch.testing.assert_close(before_BLD[:, :50], after_BLD[:, :50])
    assert not torch.allclose(before_BLD[:, 50:], after_BLD[:, 50:])


@pytest.mark.parametrize("negatives", [None, 64], ids=["full", "sampled"])
def test_sasrec_steps_lower_the_loss(negatives: int | None) -> None:
    torch.manual_seed(0)
    step = sasrec_step(zipf_windows(2, HISTORY), negatives)
    losses = [float(torch.as_tensor(step())) for _ in range(15)]
    assert losses[-1] < 0.7 * losses[0]
