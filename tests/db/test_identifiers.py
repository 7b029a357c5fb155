"""Identifiers are UUIDs of version 7: unique, and in the order of their milliseconds."""

import time

from db.identifiers import new_id


def test_ids_are_unique_and_of_version_7():
    ids = [new_id() for _ in range(10_000)]

    assert len(set(ids)) == len(ids)
    assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}


def test_ids_begin_with_the_time_and_so_sort_by_it():
    before = time.time_ns() // 1_000_000
    first = new_id()
    time.sleep(0.002)
    second = new_id()
    after = time.time_ns() // 1_000_000

    assert before <= first.int >> 80 <= second.int >> 80 <= after
    assert first < second
