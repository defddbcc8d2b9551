import torch

from unit.evaluation.grids import in_column, in_row, sample_grid


def test_a_row_and_a_column_by_hand() -> None:
    small, large = torch.zeros(3, 1, 1), torch.full((3, 2, 1), -1.0)
    assert in_row([small, large], gap=1)[0].tolist() == [[0, 1, -1], [1, 1, -1]]
    assert in_column([small, large], gap=1)[0].tolist() == [[0], [1], [-1], [-1]]


def test_a_grid_has_its_rows_in_blocks() -> None:
    inputs = torch.arange(3.0)[:, None, None, None].expand(3, 3, 1, 1) / 10
    grid = sample_grid([inputs, -inputs], blocks=2, gap=1)
    white = 1.0
    expected = [[0.0, white, 0.0, *[white] * 4, 0.2, white, -0.2], [white] * 10, [0.1, white, -0.1, *[white] * 7]]
    torch.testing.assert_close(grid[0], torch.tensor(expected))
