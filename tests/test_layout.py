import torch

from libra.layout import TokenLayout


def test_square_picture_is_covered_by_the_grid():
    layout = TokenLayout.square_crop(100, 100, (2, 3))
    assert len(layout) == 6
    assert layout.grid() == (2, 3)
    assert layout.row.tolist() == [0, 0, 0, 1, 1, 1]
    assert layout.column.tolist() == [0, 1, 2, 0, 1, 2]
    torch.testing.assert_close(layout.box[0], torch.tensor([0, 0, 1 / 3, 1 / 2]))
    torch.testing.assert_close(layout.box[5], torch.tensor([2 / 3, 1 / 2, 1, 1]))


def test_wide_picture_loses_both_sides():
    layout = TokenLayout.square_crop(400, 200, (4, 4))
    torch.testing.assert_close(layout.box[0], torch.tensor([0.25, 0.0, 0.375, 0.25]))
    torch.testing.assert_close(layout.box[15], torch.tensor([0.625, 0.75, 0.75, 1.0]))


def test_tall_picture_loses_top_and_bottom():
    layout = TokenLayout.square_crop(200, 400, (2, 2), image=3)
    assert layout.image.tolist() == [3] * 4
    torch.testing.assert_close(layout.box[0], torch.tensor([0.0, 0.25, 0.5, 0.5]))
    torch.testing.assert_close(layout.box[3], torch.tensor([0.5, 0.5, 1.0, 0.75]))


def test_patches_are_square_pixels_side_by_side():
    width, height, n = 640, 427, 24
    box = TokenLayout.square_crop(width, height, (n, n)).box
    pixels = box * torch.tensor([width, height, width, height])
    size = pixels[:, 2:] - pixels[:, :2]
    torch.testing.assert_close(size, torch.full_like(size, height / n), rtol=0, atol=1e-3)
    grid = box.view(n, n, 4)
    torch.testing.assert_close(grid[:, 1:, 0], grid[:, :-1, 2])
    torch.testing.assert_close(grid[1:, :, 1], grid[:-1, :, 3])


def test_several_pictures_and_newline_tokens():
    first, second = TokenLayout.square_crop(5, 5, (2, 2)), TokenLayout.square_crop(9, 5, (3, 1), 1)
    newline = TokenLayout(
        image=torch.tensor([1]),
        frame=torch.tensor([0]),
        row=torch.tensor([-1]),
        column=torch.tensor([-1]),
        box=torch.zeros(1, 4),
    )
    both = TokenLayout.cat([first, second, newline])
    assert len(both) == 8
    assert both.grid(0) == (2, 2)
    assert both.grid(1) == (3, 1)
    assert both.grid(2) == (0, 0)
    assert both.grid(0, frame=1) == (0, 0)


def test_select_follows_the_slots():
    layout = TokenLayout.square_crop(6, 6, (2, 2)).select(torch.tensor([3, 0]))
    assert layout.row.tolist() == [1, 0]
    assert layout.column.tolist() == [1, 0]
    assert layout.box.shape == (2, 4)
