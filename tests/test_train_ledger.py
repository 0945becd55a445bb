"""The ledger of steps: every step finds its own order and leaves its own report, whatever was there before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from being_rt.train.ledger import PAGE, SPARE, Ledger
from being_rt.train.upload import Upload


def run(ledger: Ledger, orders: np.ndarray) -> np.ndarray:
    """Steps that report the sum and the first number of what they are told, written a few at a time."""
    ledger.turn()
    for i in range(len(orders)):
        if i % 5 == 0:
            ledger.write(i, orders[i : i + 5])
        ledger.begin()
        ledger.finish(torch.stack([ledger.order.sum(), ledger.order[0]]))
    return ledger.reports(len(orders)).cpu().numpy()


def check(device: str) -> None:
    ledger = Ledger(3, device)
    random = np.random.default_rng(0)
    for count in (7, PAGE, 2):
        orders = random.normal(size=(count, 3)).astype(np.float32)
        np.testing.assert_allclose(
            run(ledger, orders), np.stack([orders.sum(1), orders[:, 0]], 1), rtol=1e-5, atol=1e-6
        )


def test_orders_become_reports() -> None:
    check("cpu")


def test_reports_are_copies() -> None:
    ledger = Ledger(1, "cpu")
    run(ledger, np.ones((2, 1), np.float32))
    first = ledger.reports(2)
    run(ledger, np.zeros((2, 1), np.float32))
    assert first.tolist() == [[1, 1], [1, 1]]


def test_there_is_room_for_steps_that_do_not_count() -> None:
    ledger = Ledger(1, "cpu")
    run(ledger, np.ones((PAGE, 1), np.float32))
    for _ in range(SPARE):
        ledger.begin()
        ledger.finish(torch.zeros(2))
    assert ledger.place.item() == PAGE + SPARE


def test_no_report_before_a_step() -> None:
    with pytest.raises(ValueError, match="no step has finished"):
        Ledger(1, "cpu").reports(1)


def test_an_upload_fills_rows() -> None:
    tensor = torch.zeros(5, 2)
    Upload(tensor)(np.ones((2, 2), np.float32), start=3)
    assert tensor.sum(1).tolist() == [0, 0, 0, 2, 2]


@pytest.mark.gpu
def test_a_graph_finds_its_orders() -> None:
    check("cuda")
    ledger = Ledger(1, "cuda")
    ledger.begin()
    ledger.finish(2 * ledger.order)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ledger.begin()
        ledger.finish(2 * ledger.order)
    for factor in (1, 3):
        orders = factor * np.arange(40, dtype=np.float32)[:, None]
        ledger.turn()
        for i in range(40):
            if i % 8 == 0:
                ledger.write(i, orders[i : i + 8])
            graph.replay()
        np.testing.assert_array_equal(ledger.reports(40).cpu().numpy(), 2 * orders)
