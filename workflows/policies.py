"""Every time limit and retry, with its reason."""

from datetime import timedelta
from typing import Literal, TypedDict

from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from activities.failures import DECISION_ATTEMPTS, PERMANENT_FAILURES, SUMMARY_ATTEMPTS


class ActivityOptions(TypedDict, total=False):
    """The part of `execute_activity`'s options that a policy fixes."""

    start_to_close_timeout: timedelta
    schedule_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy
    cancellation_type: ActivityCancellationType


# PostgreSQL or Redis being away is no reason to lose a test: tried for ever, soon at first.
# Failures that another attempt cannot cure are named by `activities.failures`.
_PERSISTENT = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=5),
    non_retryable_error_types=PERMANENT_FAILURES,
)

# One candle is a few milliseconds of work. A worker that died is noticed only by this limit.
STEP = ActivityOptions(start_to_close_timeout=timedelta(seconds=10), retry_policy=_PERSISTENT)

# The first call of a session loads its candles and computes its indicators: 50,000 candles with
# 40 indicators stay below five seconds on a busy machine; a dead worker is noticed by the
# heartbeat.
INDICATORS = ActivityOptions(
    start_to_close_timeout=timedelta(seconds=20),
    heartbeat_timeout=timedelta(seconds=5),
    retry_policy=_PERSISTENT,
)

# An exchange that is down is asked again for as long as the test runs: at most once a minute.
MARKET = ActivityOptions(
    start_to_close_timeout=timedelta(minutes=10),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=60),
        non_retryable_error_types=PERMANENT_FAILURES,
    ),
)

# The same for an order that waits for the open of the forming candle; a stop waits for what a
# fill under way comes to.
FILL: ActivityOptions = {
    **MARKET,
    "cancellation_type": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
}

# A feed is one long attempt, which ends by itself after an hour; a dead worker is noticed by the
# heartbeat, and until another takes over positions are protected by their candles.
FEED = ActivityOptions(
    start_to_close_timeout=timedelta(minutes=70),
    heartbeat_timeout=timedelta(seconds=5),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=30),
        non_retryable_error_types=PERMANENT_FAILURES,
    ),
)

# A letter takes up to a minute and a half to hand over. A mail server that takes none for an hour
# is not waited for longer; the notification itself is there since the first attempt. A dead worker
# is noticed by the heartbeat: the end of a test waits for its notices.
NOTICE = ActivityOptions(
    start_to_close_timeout=timedelta(seconds=120),
    heartbeat_timeout=timedelta(seconds=10),
    schedule_to_close_timeout=timedelta(hours=1),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=3.0,
        maximum_interval=timedelta(minutes=5),
        non_retryable_error_types=PERMANENT_FAILURES,
    ),
)

# An account of a million decisions is written in six minutes, on a busy machine in twenty. A
# storage that is away, or a queue of other exports, is waited for for two hours; then the user can
# ask again. A dead worker is noticed by the heartbeat.
EXPORT = ActivityOptions(
    start_to_close_timeout=timedelta(minutes=30),
    heartbeat_timeout=timedelta(seconds=10),
    schedule_to_close_timeout=timedelta(hours=2),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=60),
        non_retryable_error_types=PERMANENT_FAILURES,
    ),
)

# A test of 50,000 candles with as many decisions is read, folded and hashed in a quarter of a
# minute, and written in another; half a million take minutes. A storage or a database that is away
# is waited for for an hour; the user can then ask again. A dead worker is noticed by the heartbeat.
CERTIFICATE = ActivityOptions(
    start_to_close_timeout=timedelta(minutes=20),
    heartbeat_timeout=timedelta(seconds=10),
    schedule_to_close_timeout=timedelta(hours=1),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=30),
        non_retryable_error_types=PERMANENT_FAILURES,
    ),
)

# Files that no row names are swept after a day: a database that was away for longer than half of
# one makes them be written anew, and that more than once only if it goes on so.
WRITTEN_AGAIN = 3

# Half a second of candles and one transaction; a dead worker is noticed by the heartbeat.
CHUNK = ActivityOptions(
    start_to_close_timeout=timedelta(minutes=2),
    heartbeat_timeout=timedelta(seconds=10),
    retry_policy=_PERSISTENT,
)

# A result reads every step of the test: seconds for 50,000 candles, heartbeats in between.
FINISH = ActivityOptions(
    start_to_close_timeout=timedelta(minutes=10),
    heartbeat_timeout=timedelta(seconds=30),
    retry_policy=_PERSISTENT,
)

# HTTP limit (30 s) < one attempt (half a minute for its key's turn, and two calls, since an invalid
# reply is asked for once more, each with a minute to be booked while PostgreSQL is away) < all
# attempts; one that waits for longer is handed back and begins anew. Five minutes ride out a
# provider's restart; after that the session pauses and its owner decides. A dead worker is noticed
# by the heartbeat.
DECISION = ActivityOptions(
    start_to_close_timeout=timedelta(minutes=4),
    schedule_to_close_timeout=timedelta(minutes=5),
    heartbeat_timeout=timedelta(seconds=5),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=60),
        maximum_attempts=DECISION_ATTEMPTS,
        non_retryable_error_types=PERMANENT_FAILURES,
    ),
    # What was paid is booked before the workflow goes on.
    cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
)

# One call, booked as a decision's is: half a minute for its key's turn, five seconds for its price,
# 30 for the reply and a minute to be booked are less than one attempt, so that none is cut within
# what is paid for. A provider that fails three times is left alone.
AI_SUMMARY = ActivityOptions(
    start_to_close_timeout=timedelta(minutes=3),
    schedule_to_close_timeout=timedelta(minutes=15),
    heartbeat_timeout=timedelta(seconds=5),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=60),
        maximum_attempts=SUMMARY_ATTEMPTS,
        non_retryable_error_types=PERMANENT_FAILURES,
    ),
)
# Nothing waits for a summary but the end of the workflow, and a test without it is as good: a key
# that is busy for longer has other things to do.
AI_SUMMARY_PATIENCE = timedelta(minutes=10)

Speed = Literal["slow", "normal", "fast", "instant"]

# Milliseconds between candles, as the front end's four speeds promise.
PLAYBACK_DELAY = {
    "slow": timedelta(milliseconds=1000),
    "normal": timedelta(milliseconds=500),
    "fast": timedelta(milliseconds=200),
    "instant": timedelta(0),
}
