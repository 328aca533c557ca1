"""The place of the true class, and what is no answer."""

import numpy as np
import pytest
import torch

from training.evaluation.predictions import PredictionError, ResultKey, rank_predictions

KEY = ResultKey("net", "ten")


def test_rank_and_guess_are_those_of_a_stable_sort() -> None:
    random = np.random.default_rng(0)
    # Few different values, so that many are equal.
    probabilities = (random.integers(0, 4, (200, 9)) / 8).astype(np.float32)
    true = random.integers(0, 9, 200)
    found = rank_predictions(torch.from_numpy(probabilities), torch.from_numpy(true), KEY)
    for i, row in enumerate(probabilities):
        falling = sorted(range(9), key=lambda c: -row[c])
        assert found.guess[i] == falling[0]
        assert found.rank[i] == falling.index(true[i])
        assert found.probability[i] == row[falling[0]]
        assert found.true_probability[i] == row[true[i]]
        assert found.is_wrong(1)[i] == (falling[0] != true[i])
        assert found.is_wrong(5)[i] == (true[i] not in falling[:5])


def test_values_that_are_not_numbers_are_an_error_not_a_hit() -> None:
    with pytest.raises(PredictionError, match="net predicts NaN"):
        rank_predictions(torch.tensor([[0.5, float("nan")]]), torch.tensor([1]), KEY)
