"""All that lies in Redis and in the database, as text to search."""

import zlib
from typing import Any

import psycopg
from redis.asyncio import Redis


async def everything_in(redis: Redis) -> str:
    """Every key of Redis with its value."""
    found: list[object] = []
    async for key in redis.scan_iter():
        kind: Any = await redis.type(key)
        read: Any = {b"stream": redis.xrange, b"string": redis.get, b"hash": redis.hgetall}[kind]
        found.append((key, await read(key)))
    return str(found)


def everything_stored(postgres_url: str) -> str:
    """Every row of every table, with the prompts unpacked."""
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    prompts = "SELECT prompt_text FROM decisions WHERE prompt_text IS NOT NULL"
    with psycopg.connect(postgres_url) as superuser:
        names = [name for (name,) in superuser.execute(tables)]
        rows = [superuser.execute(f"SELECT t::text FROM {name} t").fetchall() for name in names]
        unpacked = [zlib.decompress(packed) for (packed,) in superuser.execute(prompts)]
    return f"{rows}{unpacked}"
