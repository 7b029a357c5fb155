"""WebSockets."""

from fastapi import APIRouter, WebSocket

from api.realtime.endpoint import watch_session

router = APIRouter()


@router.websocket("/ws/backtest/{session_id}")
async def watch_backtest(socket: WebSocket, session_id: str) -> None:
    await watch_session(socket, session_id, "backtest")


@router.websocket("/ws/forward/{session_id}")
async def watch_forward_test(socket: WebSocket, session_id: str) -> None:
    await watch_session(socket, session_id, "forward")
