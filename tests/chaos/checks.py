"""What a disturbed run must share with an undisturbed one, line by line."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.chaos.accounts import RowEvent, events_of, question_of
from tests.chaos.bystanders import Bystanders, Resumed
from tests.chaos.clients import Received, WatchingClient
from tests.chaos.kills import Kill
from tests.chaos.plans import Plan
from tests.chaos.runs import Outcome, Run

IMPORT_LIMIT_SECONDS = 10.0
# A dead worker is noticed by the time limits of what it was doing, five to ten seconds; then the
# workflow may wait for it for ten more.
STANDSTILL_LIMIT_SECONDS = {
    "worker": 25.0,
    "request": 25.0,
    "redis": 5.0,
    "api": 5.0,
    "postgres": 20.0,
    "temporal": 20.0,
    "temporal's data": 150.0,
    "simulators": 20.0,
    "everything": 60.0,
}
UNUSUAL_SECONDS = 0.5
# A decision that was interrupted belongs to the candle stepped last before the kill, or, when the
# kill waited for its moment, to one of the next.
_CANDLES_FROM_KILL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One claim, what was seen, and whether it holds."""

    claim: str
    seen: str
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Standstill:
    """How long a kill held up the session, and how long a client that stays heard nothing."""

    kill: Kill
    session_seconds: float
    client_seconds: float


def import_lines(candles: str, seconds: float, plan: Plan) -> Iterator[Line]:
    limit = IMPORT_LIMIT_SECONDS * plan.leniency
    yield Line(
        claim=f"candles imported within {limit:g} s",
        seen=f"{seconds:.1f} s: {candles}",
        holds=seconds < limit,
    )


def run_lines(run: Run, plan: Plan) -> Iterator[Line]:
    """What holds for every run, disturbed or not."""
    decisions, trades = run.outcome.decisions, run.outcome.trades
    closed = [trade for trade in trades if trade["exit_price"] is not None]
    yield Line(
        claim=f"it steps all {plan.candles} candles and decides at every due one",
        seen=f"{len(run.equity)} candles, {len(decisions)} decisions, {len(trades)} trades",
        holds=[number for number, _, _ in run.equity] == list(range(plan.candles))
        and len(decisions) == -(-plan.candles // plan.interval)
        and len(closed) == len(trades) > 0,
    )
    yield from _request_lines(run)
    for name, client in run.clients.items():
        yield from _client_lines(name, client, run)


def same_lines(run: Run, other: Run) -> Iterator[Line]:
    """That two runs are the same in all that is not a session's own."""
    ours, theirs = run.outcome, other.outcome
    yield _same("the same trades", ours.trades, theirs.trades)
    yield _same("the same decisions", ours.decisions, theirs.decisions)
    yield _same("the same equity after every candle", run.equity, other.equity)
    yield _same_result(ours, theirs)
    yield _same("the same events under the same numbers", run.events, other.events)
    yield _same("the same questions to the model", _questions(run), _questions(other))


def kill_lines(run: Run, plan: Plan) -> Iterator[Line]:
    """What holds for the kills of a disturbed run."""
    happened, planned = Counter(k.victim for k in run.kills), Counter(plan.victims)
    yield Line(
        claim="every kill took place",
        seen=", ".join(f"{victim} {count}" for victim, count in happened.items()),
        holds=happened == planned,
    )
    for victim, seconds in STANDSTILL_LIMIT_SECONDS.items():
        limit = seconds * plan.leniency
        stood = [each.session_seconds for each in standstills(run) if each.kill.victim == victim]
        if stood:
            yield Line(
                claim=f"a kill of {victim} holds the session up for less than {limit:g} s",
                seen=", ".join(f"{each:.1f} s" for each in stood),
                holds=max(stood) < limit,
            )


def standstills(run: Run) -> list[Standstill]:
    """What each kill cost, in the order of the kills."""
    stored = [step["happened_at"].timestamp() for step in run.steps]
    heard = [each.at for each in run.clients["steady"].received]
    ends = [kill.at for kill in run.kills[1:]] + [float("inf")]
    return [
        Standstill(
            kill=kill,
            session_seconds=_silence(stored, kill.at, end),
            client_seconds=_silence(heard, kill.at, end),
        )
        for kill, end in zip(run.kills, ends, strict=True)
    ]


def bystander_lines(bystanders: Bystanders) -> Iterator[Line]:
    for paused in bystanders.paused:
        yield Line(
            claim="a pause takes effect within one candle",
            seen=f"asked at {paused.asked}, paused at {paused.standing['cursor']}",
            holds=paused.standing["cursor"] <= paused.asked + 1,
        )


def resumed_lines(resumed: Resumed, undisturbed: Outcome) -> Iterator[Line]:
    yield from _still_paused(resumed, "resumed")
    yield _same("resumed: the same trades", resumed.outcome.trades, undisturbed.trades)
    yield _same("resumed: the same decisions", resumed.outcome.decisions, undisturbed.decisions)
    yield _same_result(resumed.outcome, undisturbed, who="resumed: ")


def stopped_lines(resumed: Resumed, undisturbed: Outcome, *, closes: bool) -> Iterator[Line]:
    """That a stop ends the test where it stood, with what it held closed or kept."""
    who = "stopped with closing" if closes else "stopped without closing"
    yield from _still_paused(resumed, who)
    result, standing = resumed.outcome.result, resumed.paused.standing
    yield Line(
        claim=f"{who}: it ends with a result",
        seen=f"{resumed.answer['status']}, {result['end_reason']}, "
        f"position open {standing['is_open']} -> {result['open_position_at_end']}",
        holds=resumed.answer["status"] == "completed"
        and result["end_reason"] == "stopped"
        and result["open_position_at_end"] == (standing["is_open"] and not closes),
    )
    yield _decided_so_far(resumed, undisturbed, who)
    yield from _stopped_trades(resumed, undisturbed, who, closes=closes)


def _decided_so_far(resumed: Resumed, undisturbed: Outcome, who: str) -> Line:
    """A pause may come between a candle and its decision, which a stop then leaves out."""
    cursor, decisions = resumed.paused.standing["cursor"], resumed.outcome.decisions
    return Line(
        claim=f"{who}: the same decisions up to candle {cursor}",
        seen=f"{len(decisions)}",
        holds=len(decisions) in {cursor - 1, cursor}
        and list(decisions) == list(undisturbed.decisions[: len(decisions)]),
    )


def _stopped_trades(
    resumed: Resumed, undisturbed: Outcome, who: str, *, closes: bool
) -> Iterator[Line]:
    trades, standing = list(resumed.outcome.trades), resumed.paused.standing
    before = [t for t in undisturbed.trades if t["entry_candle"] < standing["cursor"]]
    if standing["is_open"]:
        last, expected = trades.pop(), before.pop()
        entry = ("type", "entry_price", "entry_time", "size", "stop_loss", "take_profit")
        yield _same(
            f"{who}: the same entry of its last trade",
            [last[name] for name in entry],
            [expected[name] for name in entry],
        )
        yield Line(
            claim=f"{who}: its last trade ends so",
            seen=f"exit {last['exit_type']} at {last['exit_price']}",
            holds=last["exit_type"] == ("manual" if closes else None),
        )
    yield _same(f"{who}: the same trades before", trades, before)


def _still_paused(resumed: Resumed, who: str) -> Iterator[Line]:
    before, later, shown = resumed.paused.standing, resumed.later, resumed.shown
    yield Line(
        claim=f"{who}: still paused after everything, where it was",
        seen=f"candle {before['cursor']} -> {later['cursor']}, "
        f"last seq {before['last_seq']} -> {later['last_seq']}, {shown['status']}",
        holds=later["status"] == shown["status"] == "paused"
        and shown["pause_reason"] == "user"
        and shown["current_candle"] == before["cursor"]
        and (later["cursor"], later["last_seq"]) == (before["cursor"], before["last_seq"]),
    )
    yield from sequence_lines(who, resumed.client.received)


def _request_lines(run: Run) -> Iterator[Line]:
    """That each decision was bought once, and what a kill may have let be bought again."""
    attempts = {question_of(call): int(call["attempts"]) for call in run.calls}
    candles = {question_of(call): int(call["candle_number"]) for call in run.calls}
    again = {q: count for q, count in run.requests.items() if count > 1}
    repeated = sorted(candles.get(question, -1) for question in again)
    doubtful = sorted(candles[question] for question, tries in attempts.items() if tries > 1)
    counted = sum(tries - 1 for tries in attempts.values())
    yield Line(
        claim="one model request for each decision, besides what is counted as doubtful",
        seen=f"{run.requests.total()} requests for {len(attempts)} decisions; "
        f"twice at candles {repeated or 'none'}",
        holds=set(run.requests) == set(attempts)
        and len(attempts) == len(run.outcome.decisions) == len(run.calls)
        and all(count <= attempts[question] for question, count in run.requests.items()),
    )
    yield Line(
        claim="`possibly_paid_twice` counts each doubtful request, and only a kill makes one",
        seen=f"{run.outcome.possibly_paid_twice}; attempts beyond the first {counted}, "
        f"at candles {doubtful or 'none'}",
        holds=run.outcome.possibly_paid_twice == counted
        and all(_is_near_a_kill(candle, run.kills) for candle in doubtful)
        and counted <= len([k for k in run.kills if k.victim not in {"redis", "api"}]),
    )


def _client_lines(name: str, client: WatchingClient, run: Run) -> Iterator[Line]:
    who = f"client {name!r}"
    yield from sequence_lines(who, client.received)
    yield Line(
        claim=f"{who}: what it got is what the rows say",
        seen=f"{len(client.received)} events over {client.connections} connections, "
        f"{client.refusals.total()} refused {dict(client.refusals) or ''}",
        holds=not client.ungreeted and agree(client.received, events_of(run.steps)),
    )
    if name != "steady":
        steady = run.clients["steady"].frames
        yield _same(f"{who}: each number with one content and time", client.frames, steady)


def sequence_lines(who: str, received: Sequence[Received]) -> Iterator[Line]:
    """That a client got every number of a session that has ended, once and in order."""
    seqs = [each.seq for each in received]
    counts = Counter(seqs)
    missing = sorted(set(range(1, max(seqs, default=0) + 1)) - set(seqs))
    double = sorted(seq for seq, count in counts.items() if count > 1)
    stamps = [each.frame["timestamp"] for each in received]
    last = received[-1].frame["event"] if received else None
    yield Line(
        claim=f"{who}: no number missing, none double, times ascending",
        seen=f"1 to {max(seqs, default=0)}, {len(missing)} missing {missing[:5] or ''}, "
        f"{len(double)} double {double[:5] or ''}",
        holds=seqs == list(range(1, len(seqs) + 1))
        and stamps == sorted(set(stamps))
        and last == "session_completed",
    )


def agree(received: Sequence[Received], stored: Sequence[RowEvent]) -> bool:
    """Whether a client got what the rows say."""
    if len(received) != len(stored):
        return False
    return all(
        (frame["seq"], frame["event"], frame["timestamp"]) == (row.seq, row.event, row.timestamp)
        and (row.data is None or frame["data"] == row.data)
        for frame, row in zip((each.frame for each in received), stored, strict=True)
    )


def _questions(run: Run) -> list[tuple[int, str]]:
    return [(call["candle_number"], question_of(call)) for call in run.calls]


def _is_near_a_kill(candle: int, kills: Iterable[Kill]) -> bool:
    return any(abs(candle - (kill.candle - 1)) <= _CANDLES_FROM_KILL for kill in kills)


def _silence(times: Sequence[float], start: float, end: float) -> float:
    """All the time between neighbours that lie unusually far apart, the second after `start`."""
    gaps = [later - earlier for earlier, later in pairwise(times) if start <= later < end]
    return sum(gap for gap in gaps if gap > UNUSUAL_SECONDS)


def _same(claim: str, ours: Sequence[Any], theirs: Sequence[Any]) -> Line:
    pairs = zip(ours, theirs, strict=False)
    different = next((number for number, (a, b) in enumerate(pairs) if a != b), None)
    seen = f"{len(ours)}"
    if different is not None:
        seen = f"no. {different} differs: {_difference(ours[different], theirs[different])}"
    elif len(ours) != len(theirs):
        seen = f"{len(ours)} instead of {len(theirs)}"
    return Line(claim=claim, seen=seen, holds=list(ours) == list(theirs))


def _same_result(ours: Outcome, theirs: Outcome, who: str = "") -> Line:
    names = sorted(ours.result)
    difference = _difference(ours.result, theirs.result)
    return Line(
        claim=f"{who}the same result",
        seen=difference or f"{len(names)} figures, final {ours.result['ending_capital']:.2f}",
        holds=ours.result == theirs.result,
    )


def _difference(a: Any, b: Any) -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
        return ", ".join(f"{name}: {_difference(a.get(name), b.get(name))}" for name in names)
    return "" if a == b else f"{a!r:.200} / {b!r:.200}"
