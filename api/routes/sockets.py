"""WebSockets."""

from fastapi import APIRouter, WebSocket

from api.realtime.endpoint import watch_session
from api.realtime.price_socket import watch_price

router = APIRouter()


@router.websocket("/ws/backtest/{session_id}")
async def watch_backtest(socket: WebSocket, session_id: str) -> None:
    await watch_session(socket, session_id, "backtest")


@router.websocket("/ws/forward/{session_id}")
async def watch_forward_test(socket: WebSocket, session_id: str) -> None:
    await watch_session(socket, session_id, "forward")


@router.websocket("/ws/prices/{asset:path}")
async def watch_prices(socket: WebSocket, asset: str) -> None:
    await watch_price(socket, asset)
