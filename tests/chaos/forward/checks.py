"""What must hold of a forward test that was killed under, line by line."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from tests.chaos.accounts import Row, events_of, question_of
from tests.chaos.checks import Line, Standstill, agree, sequence_lines
from tests.chaos.clients import WatchingClient
from tests.chaos.forward.plans import HOUR_MS, ForwardPlan
from tests.chaos.forward.runs import Evidence, untold

# No test stands still for longer; reconciliation looks once a minute, at what was left for half.
STANDSTILL_LIMIT_SECONDS = 40.0
LOST_LIMIT_SECONDS = 120.0
LOST: Final = "temporal's data"
# Between a candle's step and its decision nothing happens; a kill was there, but for our clocks.
_CLOCK_SECONDS = 0.2
_COUNTS: Mapping[str, str] = MappingProxyType(
    {"missed": "missed_candles", "paused": "paused_candles", "late": "late_decisions"}
)


def evidence_lines(evidence: Evidence) -> Iterator[Line]:
    """Everything about one test."""
    yield from _candle_lines(evidence)
    yield from _account_lines(evidence)
    yield from _order_lines(evidence)
    yield from _request_lines(evidence)
    yield _parity_line(evidence)
    yield _sequence_line(evidence)
    if evidence.client is not None:
        yield from _client_lines(evidence, evidence.client)
    yield from _notice_lines(evidence)


def kill_lines(tests: Sequence[Evidence], plan: ForwardPlan) -> Iterator[Line]:
    """What holds of the kills, and that they met tests that do something."""
    seen = Counter(kill.victim for kill in tests[0].kills)
    yield Line(
        claim="every kill took place",
        seen=", ".join(f"{victim} {count}" for victim, count in seen.items()),
        holds=seen == Counter(plan.victims) + Counter([LOST] if plan.loses_temporal else []),
    )
    stood = standstills(tests)
    killed = [each.session_seconds for each in stood if each.kill.victim != LOST]
    lost = [each.session_seconds for each in stood if each.kill.victim == LOST]
    yield _delay_line("a kill", killed, STANDSTILL_LIMIT_SECONDS * plan.leniency)
    yield _delay_line("the loss of Temporal's data", lost, LOST_LIMIT_SECONDS * plan.leniency)
    early = sum(each.parity.sightings for each in tests)
    yield Line(
        claim=f"at least {plan.exits_between_closes} positions end between two closes",
        seen=f"{early}",
        holds=early >= plan.exits_between_closes,
    )


def _delay_line(what: str, seconds: Sequence[float], limit: float) -> Line:
    longest = max(seconds, default=0.0)
    return Line(
        claim=f"after {what} every test has its next candle within {limit:g} s",
        seen=f"{len(seconds)} times, at most {longest:.1f} s",
        holds=longest < limit,
    )


def standstills(tests: Sequence[Evidence]) -> list[Standstill]:
    """How long after each kill the last test had its next candle, and the client its next event."""
    heard = [each.at for test in tests if test.client for each in test.client.received]
    stored = [[step["happened_at"].timestamp() for step in test.candles] for test in tests]
    return [
        Standstill(
            kill=kill,
            session_seconds=max(_until_next(times, kill.at) for times in stored),
            client_seconds=_until_next(heard, kill.at),
        )
        for kill in tests[0].kills
    ]


def _candle_lines(evidence: Evidence) -> Iterator[Line]:
    session, candles = evidence.session, evidence.candles
    numbers = [step["candle_number"] for step in candles]
    times = [_ms(step["open_time"]) for step in candles]
    holes = sum(later - earlier != HOUR_MS for earlier, later in pairwise(times))
    yield Line(
        claim="candles are stepped once each, from 0 to the cursor",
        seen=f"{len(numbers)} candles, cursor {session['cursor']}, epoch {session['epoch']}",
        holds=numbers == list(range(session["cursor"])) != [],
    )
    yield Line(
        claim="they lie on the grid, from the start on, without a hole",
        seen=f"{holes} holes",
        holds=holes == 0 and times[:1] == [_ms(session["start_date"])],
    )


def _account_lines(evidence: Evidence) -> Iterator[Line]:
    """That each candle is decided, late, missed, paused, or the one at which the test stopped."""
    found = Counter(what for _, what in fates(evidence))
    moved = [number for number, what in fates(evidence) if what == "moved"]
    yield Line(
        claim="every candle is decided, late, missed, paused, or the last one",
        seen=", ".join(f"{what} {count}" for what, count in sorted(found.items())),
        holds=not any(what.startswith("wrong") for what in found)
        and all(_was_lost_at(evidence, number) for number in moved),
    )
    counted = {what: evidence.session[name] for what, name in _COUNTS.items()}
    told = {what: evidence.result[name] for what, name in _COUNTS.items()}
    yield Line(
        claim="session and result count what the events say",
        seen=", ".join(f"{what} {count}" for what, count in counted.items()),
        holds=counted == told == {what: found[what] for what in counted},
    )


def _order_lines(evidence: Evidence) -> Iterator[Line]:
    """That nothing was done twice, and nothing before its time."""
    decided = Counter(each["candle_number"] for each in evidence.decisions)
    yield Line(
        claim="no candle has two decisions",
        seen=f"{decided.total()} decisions at {len(decided)} candles",
        holds=decided.total() == len(decided) > 0,
    )
    early = [step["candle_number"] for step in evidence.candles if _is_early(evidence, step)]
    yield Line(
        claim="a candle is stepped after its close, a missed one after that of the next",
        seen=f"{len(early)} too early {early[:5] or ''}",
        holds=not early,
    )


def fates(evidence: Evidence) -> list[tuple[int, str]]:
    """What became of each candle."""
    late = {each["candle_number"]: each["late"] for each in evidence.decisions}
    return [
        (step["candle_number"], _fate(step, late, evidence.session["cursor"] - 1))
        for step in evidence.candles
    ]


def _fate(step: Row, late: Mapping[int, bool], last: int) -> str:
    number = step["candle_number"]
    met = [each["data"] for each in step["events"] if each["event"] == "candle_closed"]
    if len(met) != 1 or met[0]["candle_index"] != number:
        return "wrong: not met once"
    unmet = "missed" if met[0]["missed"] else "paused" if met[0]["paused"] else None
    if unmet is not None:
        return "wrong: decided nevertheless" if number in late else unmet
    if number in late:
        return "late" if late[number] else "decided"
    return "stopped" if number == last else "moved"


def _was_lost_at(evidence: Evidence, number: int) -> bool:
    """Whether Temporal's data were lost before this candle's decision, which is the next one's."""
    here, after = (evidence.candles[n]["happened_at"].timestamp() for n in (number, number + 1))
    return any(kill.victim == LOST and here < kill.at < after for kill in evidence.kills)


def _is_early(evidence: Evidence, step: Row) -> bool:
    exchange_ms = evidence.clock.time_ms(step["happened_at"].timestamp() * 1000)
    met = [each["data"] for each in step["events"] if each["event"] == "candle_closed"]
    hours = 2 if met and met[0]["missed"] else 1
    return exchange_ms < _ms(step["open_time"]) + hours * HOUR_MS


def _request_lines(evidence: Evidence) -> Iterator[Line]:
    """That each decision was bought once, and what a kill may have let be bought again."""
    done = [call for call in evidence.calls if call["status"] == "done"]
    unended = [call for call in evidence.calls if call["status"] == "started"]
    attempts = {question_of(call): int(call["attempts"]) for call in done}
    unknown = {q: n for q, n in evidence.requests.items() if q not in attempts}
    again = evidence.requests.total() - len(evidence.requests)
    yield Line(
        claim="one model request for each decision, besides what is counted as doubtful",
        seen=f"{evidence.requests.total()} requests for {len(evidence.decisions)} decisions, "
        f"{again} asked again, {len(unended)} without an end",
        holds=len(done) == len(attempts) == len(evidence.decisions)
        and all(0 < evidence.requests[q] <= tries for q, tries in attempts.items())
        and len(unknown) <= len(unended),
    )
    doubtful = [call for call in evidence.calls if call["attempts"] > 1 or call in unended]
    counted = sum(call["attempts"] - 1 for call in evidence.calls) + len(unended)
    yield Line(
        claim="`possibly_paid_twice` counts each doubtful request, and only a kill makes one",
        seen=f"{evidence.result['possibly_paid_twice']}, "
        f"at candles {[call['candle_number'] for call in doubtful] or 'none'}",
        holds=evidence.result["possibly_paid_twice"] == counted <= len(evidence.kills)
        and all(_had_a_kill(evidence, call["candle_number"]) for call in doubtful),
    )


def _had_a_kill(evidence: Evidence, number: int) -> bool:
    """Whether a kill lay between a candle's step and its decision, or the next step."""
    begin = evidence.candles[number]["happened_at"].timestamp()
    ends = [d["happened_at"] for d in evidence.decisions if d["candle_number"] == number]
    ends += [step["happened_at"] for step in evidence.candles[number + 1 : number + 2]]
    end = min((each.timestamp() for each in ends), default=float("inf"))
    return any(
        begin - _CLOCK_SECONDS < kill.at < end + _CLOCK_SECONDS
        for kill in evidence.kills
        if kill.victim not in {"redis", "api"}
    )


def _parity_line(evidence: Evidence) -> Line:
    parity = evidence.parity
    return Line(
        claim="trades and equity fold again to the last bit",
        seen=f"{parity.trades_recorded} trades, {parity.sightings} ended between closes, "
        f"{len(parity.differences)} differences {parity.differences[:1] or ''}",
        holds=parity.is_equal and parity.candles == evidence.session["cursor"] > 0,
    )


def _sequence_line(evidence: Evidence) -> Line:
    seqs = [event.seq for event in events_of(evidence.steps)]
    return Line(
        claim="events are numbered from 1 on, without a gap",
        seen=f"{len(seqs)} events, last {evidence.session['last_seq']}",
        holds=seqs == list(range(1, evidence.session["last_seq"] + 1)) != [],
    )


def _client_lines(evidence: Evidence, client: WatchingClient) -> Iterator[Line]:
    yield from sequence_lines("the client", client.received)
    yield Line(
        claim="the client: what it got is what the rows say",
        seen=f"{len(client.received)} events over {client.connections} connections, "
        f"{client.refusals.total()} refused {dict(client.refusals) or ''}",
        holds=not client.ungreeted and agree(client.received, events_of(evidence.steps)),
    )


def _notice_lines(evidence: Evidence) -> Iterator[Line]:
    keys = Counter(notice["dedup_key"] for notice in evidence.notices)
    double = [key for key, count in keys.items() if count > 1]
    yield Line(
        claim="the user is told nothing twice",
        seen=f"{keys.total()} notices, double {double or 'none'}",
        holds=not double and keys["finish"] == 1,
    )
    missing = untold(evidence)
    lost = sum(kill.victim == LOST for kill in evidence.kills)
    yield Line(
        claim="of every exit, but for one that was lost with Temporal's data",
        seen=f"not of {missing or 'none'}",
        holds=len(missing) <= lost,
    )


def _until_next(times: Sequence[float], start: float) -> float:
    return min((at - start for at in times if at > start), default=float("inf"))


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
