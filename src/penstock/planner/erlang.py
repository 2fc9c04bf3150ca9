"""The queue in front of a pool: Erlang C, and what comes near it for other distributions."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, inf, log


def erlang_b(servers: int, load: float) -> float:
    """Return the probability that all servers are busy where nothing waits (Erlang B).

    By the recurrence ``B(n) = A B(n-1) / (n + A B(n-1))``, each step of which is a share of 1 and
    so neither overflows nor cancels, whatever the number of servers.

    Args:
        servers: 1 or more.
        load: Offered load in erlangs, 0.0 or more: arrivals per second x mean service time.
    """
    blocking = 1.0
    for number in range(1, servers + 1):
        blocking = load * blocking / (number + load * blocking)
    return blocking


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that an arrival has to wait (Erlang C).

    Args:
        servers: 1 or more.
        load: Offered load in erlangs, 0.0 or more.

    Returns:
        From 0.0 to 1.0; 1.0 where the load is as large as the number of servers, or larger.
    """
    if load >= servers:
        return 1.0
    blocking = erlang_b(servers, load)
    return servers * blocking / (servers - load + load * blocking)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with one line and several servers, such as the connections of a pool.

    With ``variability`` 1.0 it is M/M/c, and exact. With another it is the approximation of Allen
    and Cunneen: the mean wait of M/M/c times ``variability``, and waits that are exponential above
    zero as there.

    Args:
        servers: 1 or more.
        load: Offered load in erlangs, 0.0 or more.
        service: Mean service time in seconds, above 0.0.
        variability: Mean of the squared coefficients of variation of the times between arrivals
            and of the service times; 1.0 for both exponential.
    """

    servers: int
    load: float
    service: float
    variability: float = 1.0

    @property
    def utilisation(self) -> float:
        """Mean share of the servers that is busy; above 1.0 the queue grows without bound."""
        return self.load / self.servers

    @property
    def waiting_probability(self) -> float:
        """Share of the arrivals that wait."""
        return erlang_c(self.servers, self.load)

    @property
    def mean_wait_of_waiters(self) -> float:
        """Mean wait in seconds of those that wait; infinite where the queue grows."""
        spare = self.servers - self.load
        return self.variability * self.service / spare if spare > 0 else inf

    @property
    def mean_wait(self) -> float:
        """Mean wait in seconds of all arrivals; infinite where the queue grows."""
        probability = self.waiting_probability
        return probability * self.mean_wait_of_waiters if probability else 0.0

    def share_waiting_longer(self, seconds: float) -> float:
        """Return the share of the arrivals that wait for longer than some time.

        Args:
            seconds: That time.
        """
        mean = self.mean_wait_of_waiters
        if not mean:
            return 0.0
        return self.waiting_probability * exp(-seconds / mean)

    def wait_quantile(self, share: float) -> float:
        """Return the wait in seconds that a share of the arrivals does not exceed.

        Args:
            share: From 0.0 to below 1.0.
        """
        probability, others = self.waiting_probability, 1 - share
        return (
            log(probability / others) * self.mean_wait_of_waiters if probability > others else 0.0
        )


def fewest_servers(is_enough: Callable[[int], bool], most: int) -> int:
    """Return the least number of servers that is enough; ``most`` if none below it is.

    Args:
        is_enough: Whether a number is; where it is, so is every larger one.
        most: Upper limit.
    """
    lowest, highest = 1, 1
    while highest < most and not is_enough(highest):
        lowest, highest = highest + 1, min(highest * 2, most)
    while lowest < highest:
        middle = (lowest + highest) // 2
        if is_enough(middle):
            highest = middle
        else:
            lowest = middle + 1
    return highest
