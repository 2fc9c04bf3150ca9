"""A primary and its replicas: which of them reads, and what each read has to have seen."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from time import monotonic, time
from typing import Any

from penstock.base_error import PenstockError
from penstock.cluster.member import IS_PRIMARY, Endpoint, History, Look, Member
from penstock.cluster.monitor import Monitor, Probe, look_at, why
from penstock.cluster.position import ANY, UNKNOWN, Position, ReadPolicy, Reads, current_reads
from penstock.cluster.snapshot import ClusterSnapshot, MemberSnapshot
from penstock.deadlines import current_limits
from penstock.pool import PenstockPool, PoolTimeout
from penstock.telemetry.recorder import ReplicaNumbers

_logger = logging.getLogger("penstock.cluster")

MakeMember = Callable[[Endpoint], Member]
MakeProbe = Callable[[Endpoint], Probe]
Discover = Callable[[], Awaitable[list[Endpoint]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPolicy:
    """How reads are spread.

    Args:
        max_lag: Seconds that a replica may be behind.
        wait: Seconds that a read waits for a replica that is nearly there.
        primary_share: The share of the primary's connections that reads may take which no replica
            can serve.
        interval: Seconds between two looks at a server.
        pool_timeout: Seconds that such a read waits for its share.
        hold_writes: Seconds for which a write is sent again that was refused for a shutdown.
    """

    max_lag: float = 10.0
    wait: float = 0.05
    primary_share: float = 0.5
    interval: float = 1.0
    pool_timeout: float = 30.0
    hold_writes: float = 3.0


class Cluster:
    """The servers that have one database, and what is known of them.

    Until it is started, all reads go to the primary.

    Args:
        primary: What writes.
        policy: How reads are spread.
        make: Makes the member of an endpoint.
        probe: Makes the connection by which an endpoint is asked.
        discover: Finds the replicas' endpoints, when it is started and in intervals.
        is_direct: Returns whether the primary's answers are its own, and no pooler's.
    """

    def __init__(
        self,
        primary: Member,
        policy: ClusterPolicy,
        *,
        make: MakeMember,
        probe: MakeProbe,
        discover: Discover,
        is_direct: Callable[[], bool] = lambda: False,
    ) -> None:
        self.primary = primary
        self.is_direct = is_direct
        self.policy = policy
        self.replicas: dict[str, Member] = {}
        self.timeline = 0
        """The latest history that a primary was seen in."""
        self.position_waits = 0
        """Reads that have waited for a replica to reach their position."""
        self.fallbacks = 0
        """Reads that went to the primary for want of a replica."""
        self._departed_reads = 0
        self._system: int | None = None
        self._history = History()
        self._make = make
        self._make_probe = probe
        self._discover = discover
        self._probe = probe(primary.endpoint)
        self._hosts = frozenset(primary.endpoint.hosts)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pass = 0.0
        self._asking: asyncio.Task[Position] | None = None
        self._to_ask: asyncio.Task[Position] | None = None
        self._share: asyncio.Semaphore | None = None

    # Its life.

    async def start(self) -> None:
        """Look at every server, and go on looking."""
        self._forget_other_loop()
        await self._watch(self.primary, self._probe, self._primary_seen)
        await self._find()
        self._tasks[" discovery"] = asyncio.create_task(self._keep_finding())

    def _forget_other_loop(self) -> None:
        """Leave what an event loop has that ended without a stop."""
        self._tasks.clear()
        self.replicas = {}
        self._asking = self._to_ask = self._share = None
        self._probe = self._make_probe(self.primary.endpoint)

    async def stop(self, seconds: float) -> None:
        """Look no longer, and close the replicas' connections.

        Args:
            seconds: To wait for what is checked out of them.
        """
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        replicas, self.replicas = list(self.replicas.values()), {}
        self._departed_reads += sum(member.served for member in replicas)
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._probe.dispose)
            for member in replicas:
                closing.push_async_callback(member.close, seconds)
        self._share = None

    async def _watch(
        self, member: Member, probe: Probe, seen: Callable[[Member, Look], None]
    ) -> None:
        monitor = Monitor(
            probe,
            self.policy.interval,
            seen=lambda look: seen(member, look),
            failed=lambda reason: self._unanswered(member, reason),
            is_awaited=member.is_awaited,
            replayed=lambda lsn: self._replayed(member, lsn),
        )
        member.wanted = monitor.wanted
        self._tasks[member.name] = asyncio.create_task(monitor.run())
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * self.policy.interval):
                await asyncio.shield(monitor.first_look)

    async def _keep_finding(self) -> None:
        while True:
            await asyncio.sleep(5 * self.policy.interval)
            await self._find()

    async def _find(self) -> None:
        try:
            endpoints = await self._discover()
        except Exception as error:  # noqa: BLE001 - the next time may find them
            _logger.warning("The replicas could not be found, those known stay: %s", why(error))
            return
        found = {endpoint.name: endpoint for endpoint in endpoints}
        for name in self.replicas.keys() - found.keys():
            member = self.replicas.pop(name)
            self._departed_reads += member.served
            await self._leave(member)
        new = [found[name] for name in found.keys() - self.replicas.keys()]
        await asyncio.gather(*map(self._join, new))

    async def _join(self, endpoint: Endpoint) -> None:
        member = self._make(endpoint)
        self.replicas[endpoint.name] = member
        await self._watch(member, self._make_probe(endpoint), self._replica_seen)

    async def _leave(self, member: Member) -> None:
        task = self._tasks.pop(member.name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await member.close(self.policy.pool_timeout)

    def snapshot(self) -> ClusterSnapshot:
        """Return what this worker knows of the servers now."""
        replicas = list(self.replicas.values())
        reads = sum(member.served for member in (self.primary, *replicas))

        def of(member: Member) -> MemberSnapshot:
            return MemberSnapshot.of(member, self.policy.max_lag, reads)

        return ClusterSnapshot(
            primary=of(self.primary),
            replicas=tuple(sorted(map(of, replicas), key=attrgetter("name"))),
            timeline=self.timeline,
            replica_reads=self._departed_reads + sum(member.served for member in replicas),
            replica_fallbacks=self.fallbacks,
            position_waits=self.position_waits,
        )

    def numbers(self) -> ReplicaNumbers:
        """Return what telemetry has of the replicas; called once a second."""
        seen = self.snapshot()
        return ReplicaNumbers(
            replicas=len(seen.replicas),
            replicas_out=seen.replicas_out,
            replica_reads=seen.replica_reads,
            replica_fallbacks=seen.replica_fallbacks,
            position_waits=seen.position_waits,
        )

    # What was seen.

    def _primary_seen(self, member: Member, look: Look) -> None:
        if look.is_replica:
            self._left(member, look, "it is a replica: it was demoted")
        elif (look.timeline or 0) < self.timeline:
            self._left(member, look, f"it goes on with timeline {look.timeline}, after a promotion")
        else:
            self._follow(look)
            self._system = look.system
            self._wrote(look.lsn or 0)
            self._change(member, look, 0.0, "")

    def _left(self, member: Member, look: Look, trouble: str) -> None:
        """Leave a server that is the primary no more: its connections, and that of the look."""
        if member.trouble != trouble:
            member.evict()
        self._change(member, look, 0.0, trouble)
        self._later(self._probe.close())

    def _replica_seen(self, member: Member, look: Look) -> None:
        trouble = ""
        if look.system is not None and self._system not in (None, look.system):
            trouble = "it belongs to another cluster than the primary"
        else:
            if look.is_replica or member.name in self._hosts:
                self._leave_earlier(look)
            if not look.is_replica:
                trouble = self._promoted(look)
        lag = 0.0 if look.lsn is None else self._history.lag(look.lsn, monotonic())
        self._change(member, look, lag, trouble)

    def _follow(self, look: Look) -> None:
        timeline = look.timeline or 0
        if timeline != self.timeline:
            self._history.clear()
            self.timeline = timeline

    def _leave_earlier(self, look: Look) -> None:
        """Leave the primary where another host of the URL has begun a later timeline.

        With one host only, there is no other to go to: what was promoted elsewhere is none of its.
        """
        if len(self._hosts) > 1 and 0 < self.timeline < (look.timeline or 0):
            self._follow(look)
            self._later(self._probe.close())
            self.evict_primary()

    async def accepts(self, connection: Any) -> bool:
        """Return whether a new connection leads to no earlier timeline than was seen.

        Args:
            connection: asyncpg's.
        """
        if self.timeline == 0:
            return True
        look = await look_at(connection)
        return look.is_replica or look.timeline is None or look.timeline >= self.timeline

    def _promoted(self, look: Look) -> str:
        """Return why a server reads nothing that is a primary."""
        timeline = look.timeline or 0
        primary = self.primary.look
        is_same = primary is not None and not primary.is_replica and primary.timeline == timeline
        return IS_PRIMARY if is_same else "it was promoted, and is not known as primary"

    def _replayed(self, member: Member, lsn: int | None) -> None:
        look = member.look
        if look is not None and lsn is not None:
            lag = self._history.lag(lsn, monotonic())
            self._change(member, look._replace(lsn=lsn), lag, member.trouble)

    def _unanswered(self, member: Member, reason: str) -> None:
        if member.trouble != reason:
            _logger.warning("%s does not answer: %s", member.name, reason)
        member.failed(reason)
        member.move_readers()

    def _change(self, member: Member, look: Look, lag: float, trouble: str) -> None:
        if member.look is None and look.lsn is None:
            _logger.warning(
                "%s reports no position, as where one address stands for several replicas: for "
                "%g s after a write, those who have to see it read from the primary.",
                member.name,
                self.policy.max_lag,
            )
        if trouble != member.trouble:
            _logger.log(
                logging.WARNING if trouble else logging.INFO,
                "%s %s",
                member.name,
                f"serves no reads: {trouble}" if trouble else "serves reads",
            )
        member.seen(look, lag, trouble)

    def _wrote(self, lsn: int) -> None:
        self._history.add(lsn, monotonic())

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[f" {id(task)}"] = task
        task.add_done_callback(lambda _: self._tasks.pop(f" {id(task)}", None))

    def evict_primary(self) -> None:
        """Leave the primary's connections, which its server is about to end."""
        self.primary.evict()
        self.primary.wanted()

    def unfit(self, member: Member, error: BaseException) -> None:
        """Leave a replica out whose connection has failed, until it has answered again."""
        if not member.trouble:
            _logger.warning("%s serves no reads: %s", member.name, why(error))
            member.failed(why(error))
            member.wanted()

    # Choice.

    def choose(self, reads: Reads | None) -> Member | None:
        """Return the server for a read; None where it has to be waited for.

        Args:
            reads: What the read has to see; None for anything.
        """
        policy = ANY if reads is None else reads.policy
        if policy.primary or not self.replicas:
            return self.primary
        healthy = [member for member in self.replicas.values() if not member.trouble]
        if policy.prefer == "replica":
            return self._least(healthy)
        if reads is not None and self in reads.unresolved:
            return None
        longest = self.policy.max_lag if policy.max_lag is None else policy.max_lag
        fit = [member for member in healthy if member.lag <= longest]
        after = None if reads is None else reads.after.get(self)
        if after is None:
            return self._least(fit)
        now = time()
        there = [member for member in fit if member.has(after, now, self.policy.max_lag)]
        if there or not any(self._may_come(member, after) for member in fit):
            return self._least(there)
        return None

    def _least(self, members: Iterable[Member]) -> Member:
        """Return the one with the least load for its weight; the primary where there is none."""
        member = min(members, key=lambda each: (each.load, each.turn), default=None)
        if member is None:
            return self.primary
        self._pass = max(member.turn, self._pass)
        member.turn = self._pass + 1 / member.weight
        return member

    def _may_come(self, member: Member, after: Position) -> bool:
        look = member.look
        is_known = look is not None and look.lsn is not None and member.endpoint.reports_position
        is_in_history = look is not None and (look.timeline or 0) >= after.timeline
        return is_known and is_in_history and member.lag <= self.policy.wait

    async def chosen(self, reads: Reads | None) -> Member:
        """Return the server for a read, once one is there, or will not be soon.

        Args:
            reads: As for :meth:`choose`.
        """
        while reads is not None and self in reads.unresolved:
            await self.resolve(reads)
        member = self.choose(reads)
        if member is not None or reads is None:
            return member or self.primary
        await self._wait(reads.after[self])
        return self.choose(reads) or self.primary

    async def _wait(self, after: Position) -> None:
        self.position_waits += 1
        loop = asyncio.get_running_loop()
        waiters = []
        for member in self.replicas.values():
            if not member.trouble and self._may_come(member, after):
                waiters.append(loop.create_future())
                member.wait_for(after.lsn, waiters[-1])
        try:
            seconds, _ = _within_limits(self.policy.wait)
            await asyncio.wait(waiters, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()

    @asynccontextmanager
    async def share_of_primary(self) -> AsyncIterator[None]:
        """Read from the primary what no replica can serve, within the share that this may take.

        Raises:
            PoolTimeout: The share was in use for as long as a read waits for a connection.
        """
        self.fallbacks += 1
        if self._share is None:
            pool = self.primary.engine.pool
            most = pool.snapshot().limit if isinstance(pool, PenstockPool) else 1
            self._share = asyncio.Semaphore(max(1, int(most * self.policy.primary_share)))
        share = self._share
        seconds, limit = _within_limits(self.policy.pool_timeout)
        try:
            async with asyncio.timeout(seconds):
                await share.acquire()
        except TimeoutError:
            raise PoolTimeout(
                "no replica can serve the read, and the share of the primary's connections that "
                f"such reads may take (replica_primary_share={self.policy.primary_share:g}) was "
                f"in use for {seconds:.3g} s{limit and f', of {limit}'}"
            ) from None
        try:
            yield
        finally:
            share.release()

    # Positions.

    async def position(self) -> Position:
        """Ask the primary how far it has written; calls that come together share one.

        Raises:
            OSError, TimeoutError, SQLAlchemyError, PenstockError: The primary did not answer.
        """
        if self._to_ask is None:
            self._to_ask = asyncio.create_task(self._ask(self._asking))
        return await asyncio.shield(self._to_ask)

    async def _ask(self, before: "asyncio.Task[Position] | None") -> Position:
        # What was asked before a COMMIT was answered knows nothing of it.
        if before is not None:
            await asyncio.wait([before])
        self._asking, self._to_ask = self._to_ask, None
        if self.timeline == 0:
            self._primary_seen(self.primary, await self._probe.look())
        lsn = await self._probe.flushed()
        self._wrote(lsn)
        return Position(self.timeline, lsn)

    async def resolve(self, reads: Reads) -> None:
        """Have reads see what was written before: ask for its position.

        Where the primary does not answer, they go there.
        """
        writes = reads.unresolved.get(self)
        try:
            position = await self.position()
        except Exception as error:  # noqa: BLE001 - the write is saved, and is to be answered so
            _logger.warning("A write's position is not known, its reads go there: %s", why(error))
            position = UNKNOWN
        reads.resolved(self, position, writes)

    def reads(self, after: Position | str | None, policy: ReadPolicy | None) -> Reads:
        """Return what reads have to see by which more is said than by the request.

        Args:
            after: A position, or its text; None for that of the request, or of the task.
            policy: Where they may go; None for that of the request.

        Raises:
            PenstockError: The text is none of a position.
        """
        own = current_reads.get()
        reads = Reads(policy or (ANY if own is None else own.policy))
        if own is not None:
            reads.after, reads.unresolved = dict(own.after), dict(own.unresolved)
        if after is not None:
            if not isinstance(after, str | Position):
                raise PenstockError(f"after={after!r}: a Position is accepted, or its text.")
            reads.reached(self, Position.parse(after) if isinstance(after, str) else after)
        return reads

    def written(self) -> None:
        """Have the request, or else the task, see in its reads what was just committed."""
        reads = current_reads.get()
        if reads is None:
            reads = Reads()
            current_reads.set(reads)
        reads.written(self)


def _within_limits(seconds: float) -> tuple[float, str]:
    """Return how long a wait may take that the running call bounds too, and by which limit."""
    if not (limits := current_limits.get()):
        return seconds, ""
    now = monotonic()
    until, limit, _ = limits.of_wait(now)
    return (seconds, "") if now + seconds <= until else (max(0.0, until - now), limit)
