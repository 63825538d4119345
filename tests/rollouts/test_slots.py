"""What is noted of rows that come and go."""

from __future__ import annotations

import random

import torch

from nabla.rollouts.slots import ROOM, Notes


def test_each_row_keeps_its_own_notes_whoever_comes_and_goes() -> None:
    draw, notes = random.Random(0), Notes()
    rows: list[list[float] | None] = [[], [], [], []]
    notes.arrange([], len(rows))
    number = 0.0
    for _ in range(6 * ROOM):
        new = torch.arange(number, number + len(rows))
        number += len(rows)
        notes.add(new.unsqueeze(-1), torch.stack([new, -new], -1))
        for row, value in zip(rows, new.tolist(), strict=True):
            if row is not None:
                row.append(value)
        for place, own in enumerate(rows):
            if own and draw.random() < (0.001 if place == 0 else 0.05):
                one, two = notes.take(place, len(own))
                assert one[:, 0].tolist() == two[:, 0].tolist() == own
                assert two[:, 1].tolist() == [-value for value in own]
                rows[place] = None
        free = [place for place, own in enumerate(rows) if own is None]
        if free and draw.random() < 0.2:
            notes.replace(free[0])
            rows[free[0]] = []
        elif len(free) > 1:
            kept = [place for place, own in enumerate(rows) if own is not None]
            notes.arrange(kept, len(free))
            rows = [*(rows[place] for place in kept), *([] for _ in free)]


def test_notes_of_rows_of_the_past_make_room_for_new_ones() -> None:
    notes = Notes()
    notes.arrange([], 2)
    for step in range(50 * ROOM):
        notes.add(torch.full((2, 1), float(step)))
        if step % 10 == 9:  # each row is ten tokens long
            for place in (0, 1):
                (own,) = notes.take(place, 10)
                assert own[:, 0].tolist() == [float(i) for i in range(step - 9, step + 1)]
                notes.replace(place)
    assert notes._parts[0].shape[1] == ROOM
