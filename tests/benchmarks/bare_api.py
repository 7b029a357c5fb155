"""The least that an API can be: FastAPI, one endpoint, one query."""

import argparse
import os
import socket

import uvicorn
import uvloop
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from db.engine import normalized_url
from settings import DatabaseSettings


def create_app(database_url: str) -> FastAPI:
    app = FastAPI()
    pool_size = DatabaseSettings.model_fields["database_pool_size"].default
    engine = create_async_engine(
        normalized_url(database_url), pool_size=pool_size, max_overflow=0, pool_timeout=30
    )

    @app.get("/user")
    async def user() -> dict[str, str]:
        async with engine.connect() as connection:
            row = (await connection.execute(text("SELECT id, clerk_id FROM users LIMIT 1"))).one()
        return {"id": str(row.id), "clerk_id": row.clerk_id}

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    listener = socket.socket(fileno=parser.parse_args().fd)
    config = uvicorn.Config(
        create_app(os.environ["DATABASE_URL"]), log_config=None, access_log=False
    )
    uvloop.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
