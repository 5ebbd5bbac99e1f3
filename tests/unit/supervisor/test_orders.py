"""What a worker is told on its command line."""

from proxy.records import Seat
from proxy.supervisor.orders import Orders


def test_orders_are_read_as_they_were_written() -> None:
    orders = Orders(number=2, of=2, place=1, channel=5, public=((6, 7), (8, 9)), admin=(10,))
    assert Orders.read(orders.written()) == orders
    assert orders.seat == Seat(2, 2)
    assert sorted(orders.descriptors) == [5, 6, 7, 8, 9, 10]
