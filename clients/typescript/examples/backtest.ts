// Starts a backtest and follows it: API_URL=… TOKEN=… AGENT_ID=… node examples/backtest.ts

import { createClient, follow } from "../src/index.ts";

const { API_URL = "http://localhost:5000", TOKEN = "", AGENT_ID = "" } = process.env;

const client = createClient(API_URL, () => TOKEN);
const { data, error } = await client.POST("/api/arena/backtest/start", {
  body: {
    agent_id: AGENT_ID,
    asset: "btc-usdt",
    timeframe: "1h",
    date_preset: "30d",
    starting_capital: 10_000,
    playback_speed: "instant",
  },
});
if (error) throw new Error(error.detail);

const socket = follow(API_URL, "backtest", data.session.id, { token: TOKEN, lastSeq: 0 });
for await (const event of socket.events()) {
  switch (event.event) {
    case "ai_decision":
      console.log(event.data.candle_index, event.data.action, event.data.reasoning);
      break;
    case "position_closed":
      console.log(event.data.exit_type, event.data.pnl_amount.toFixed(2));
      break;
    case "session_completed":
      console.log(`${event.data.final_stats.total_pnl_pct.toFixed(2)} %`);
      break;
  }
}
