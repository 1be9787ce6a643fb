"""Whose turn it is: who may begin, who makes room, and how much one customer may hold.

A turn is one customer's one period. There are so many *places*, each for one running turn, and one customer
takes one of them at most, so a backlog of a thousand periods holds one place. Free places are given in a
weighted round robin: each turn costs a customer ``1/weight``, and who has had the least goes first.

A turn that makes no progress, because a destination does not answer, must not keep a place from those who
would. It is moved to the *waiting room*, which has places of its own, and its place is given away. A customer
whose last turn was refused or failed begins there in the first place. When the waiting room is full, a
stalled turn stays where it is: what the process does at once is bounded in any case.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

STALLED_SECONDS = 5.0
"""A turn that has made no progress for so long is stalled."""
WAITING_PLACES = 4
"""Places in the waiting room for each regular one."""


class Place(StrEnum):
    """Where a turn runs."""

    REGULAR = "regular"
    WAITING_ROOM = "waiting_room"


@dataclass(slots=True)
class _Seat:
    """One customer. ``spent`` is what its turns have cost so far, on the round's own scale."""

    weight: int
    spent: float = 0.0
    ailing: bool = False
    queued: int = 0  # the number of its entry in the queue; 0 when it is not queued
    place: Place | None = None
    called_again: bool = False
    leaves: bool = False


class Round:
    """The customers and their turns. It knows no clock and no threads: whoever calls it holds a lock, starts
    what ``begin`` answers, and says what came of it."""

    def __init__(self, places: int, waiting_places: int) -> None:
        self._free = {Place.REGULAR: places, Place.WAITING_ROOM: waiting_places}
        self._seats: dict[str, _Seat] = {}
        self._queues: dict[Place, list[tuple[float, int, str]]] = {place: [] for place in Place}
        self._entries = 0
        self._spent = 0.0  # what the customer whose turn began last had spent: newcomers begin there

    def seat(self, weights: Mapping[str, int]) -> list[str]:
        """Who takes part from now on. Answers who no longer does and still has a turn running: it is gone
        when that ends."""
        for name in list(self._seats):
            seat = self._seats[name]
            if name in weights:
                seat.weight, seat.leaves = weights[name], False
            elif seat.place is None:
                del self._seats[name]
            else:
                seat.leaves, seat.called_again = True, False
        for name, weight in weights.items():
            if name not in self._seats:
                self._seats[name] = _Seat(weight)
        return [name for name, seat in self._seats.items() if seat.leaves]

    def call(self, name: str) -> None:
        """Puts the customer into the queue. One that is queued stays where it is; one whose turn is running
        is queued when that ends. Nobody is called who does not take part."""
        seat = self._seats.get(name)
        if seat is None or seat.leaves:
            return
        if seat.place is not None:
            seat.called_again = True
        elif not seat.queued:
            self._enqueue(name, seat)

    def begin(self) -> Iterator[tuple[str, Place]]:
        """Gives the free places away, as long as there are both places and customers who wait."""
        for place in Place:
            queue = self._queues[place]
            while self._free[place] > 0 and queue:
                spent, entry, name = heapq.heappop(queue)
                seat = self._seats.get(name)
                if seat is None or seat.queued != entry:
                    continue  # has left, or was queued anew elsewhere
                seat.queued, seat.place = 0, place
                seat.spent = spent + 1 / seat.weight
                if place is Place.REGULAR:
                    self._spent = max(self._spent, spent)
                self._free[place] -= 1
                yield name, place

    def stall(self, name: str) -> bool:
        """The customer's turn makes no progress: it goes to the waiting room, if there is room, and answers
        whether a place has become free."""
        seat = self._seats.get(name)
        if seat is None or seat.place is not Place.REGULAR or self._free[Place.WAITING_ROOM] == 0:
            return False
        self._free[Place.WAITING_ROOM] -= 1
        self._free[Place.REGULAR] += 1
        seat.place = Place.WAITING_ROOM
        return True

    def end(self, name: str, *, again: bool, ailing: bool) -> None:
        """The customer's turn has ended. ``again`` when it has more to deliver at once, ``ailing`` when it
        was refused or failed in a way that its next turn would meet too."""
        seat = self._seats[name]
        assert seat.place is not None
        self._free[seat.place] += 1
        seat.place, seat.ailing = None, ailing
        again, seat.called_again = again or seat.called_again, False
        if seat.leaves:
            del self._seats[name]
        elif again:
            self._enqueue(name, seat)

    def is_contended(self, name: str) -> bool:
        """Whether somebody waits for the place that the customer's turn holds."""
        seat = self._seats.get(name)
        return seat is not None and seat.place is not None and self._has_queue(seat.place)

    def is_running(self, name: str) -> bool:
        seat = self._seats.get(name)
        return seat is not None and seat.place is not None

    def is_queued(self, name: str) -> bool:
        seat = self._seats.get(name)
        return seat is not None and seat.queued > 0

    @property
    def running(self) -> list[str]:
        return [name for name, seat in self._seats.items() if seat.place is not None]

    @property
    def waiting(self) -> int:
        """How many are queued."""
        return sum(seat.queued > 0 for seat in self._seats.values())

    def _enqueue(self, name: str, seat: _Seat) -> None:
        # Who has rested does not come back with a credit of turns that it did not want.
        seat.spent = max(seat.spent, self._spent)
        self._entries += 1
        seat.queued = self._entries
        place = Place.WAITING_ROOM if seat.ailing else Place.REGULAR
        heapq.heappush(self._queues[place], (seat.spent, seat.queued, name))

    def _has_queue(self, place: Place) -> bool:
        queue = self._queues[place]
        while queue:
            _, entry, name = queue[0]
            seat = self._seats.get(name)
            if seat is not None and seat.queued == entry:
                return True
            heapq.heappop(queue)
        return False
