"""The trading rules once more: slow, obvious, written from the page and not from the engine.

Long and short are spelt out, everything that can be looked up in the past is looked up there, and
nothing is shared with the engine. A candle is `(open_time, open, high, low, close)`, a decision
and the rules are dictionaries with the words of the page, all ratios as fractions.
"""

from typing import Any

HOUR = 3_600_000
DAY = 24 * HOUR
ROUNDING = 1e-11  # a limit is reached when only rounding is missing


class ReferenceTest:
    def __init__(self, rules):
        self.rules = rules
        self.curve = []
        self.trades = []
        self.rejections = []
        self.entry_times = []
        self.costs = {"fees": 0.0, "slippage": 0.0}
        self.position: Any = None
        self.order: Any = None
        self.ended = None
        self.ambiguous = 0
        self.exposed = 0

    __test__ = False

    # ---- the whole test

    def run(self, candles, decisions):
        self.candles = candles
        for t in range(len(candles)):
            self.step(t)
            if self.ended:
                return self
            self.decide(t, decisions.get(t), is_last=t == len(candles) - 1)
        if self.position is not None:
            self.leave_at_close(len(candles) - 1, "end_of_test")
        return self

    def step(self, t):
        time, open_, *_ = self.candles[t]
        at_close_before = self.rules["fill_timing"] == "close"
        if at_close_before:
            self.fill_order(self.candles[t - 1][4], t - 1, self.close_time(t - 1))
        self.liquidate_if_opened_beyond(t)
        if not at_close_before:
            self.fill_order(open_, t, time)
        self.protect(t)
        self.mark(t)
        self.guard(t)

    # ---- section 2, points 1 and 2

    def liquidate_if_opened_beyond(self, t):
        p = self.position
        if p is None or p["liquidation"] is None:
            return
        open_ = self.candles[t][1]
        if p["side"] == "long" and open_ < p["liquidation"]:
            self.leave(p["liquidation"], p["liquidation"], t, self.candles[t][0], "liquidation")
        if p["side"] == "short" and open_ > p["liquidation"]:
            self.leave(p["liquidation"], p["liquidation"], t, self.candles[t][0], "liquidation")

    def fill_order(self, price, candle, time):
        order, self.order = self.order, None
        if order is None:
            return
        if order["action"] == "close":
            if self.position is not None:
                paid = self.slipped_exit(self.position["side"], price)
                self.leave(paid, price, candle, time, "signal")
        else:
            self.fill_entry(order, price, candle, time)

    def fill_entry(self, order, market, candle, time):
        s = self.rules["slippage"]
        side = order["action"]
        price = market * (1 + s) if side == "long" else market * (1 - s)
        stop, target = self.levels(order, side, price)
        if not self.on_right_side(side, price, stop, target):
            self.reject(order["candle"], "wrong_side")
            return
        if self.rules["safety"]:
            stop = self.tightened(side, price, stop)
        leverage = self.leverage(order)
        liquidation = None
        if leverage > 1 and side == "long":
            liquidation = price * (1 - 1 / leverage + 0.005)
        if leverage > 1 and side == "short":
            liquidation = price * (1 + 1 / leverage - 0.005)
        equity = self.realised_equity()
        size = equity * self.size_share(order) * leverage / price
        if equity <= 0 or self.size_share(order) <= 0:
            size = 0
        if stop is not None or liquidation is not None:
            size = min(size, equity * self.most_per_equity(side, price, stop, liquidation))
        if size * price < 10 - ROUNDING:
            self.reject(order["candle"], "too_small")
            return
        fee = size * price * self.rules["fee"]
        self.costs["fees"] += fee
        self.costs["slippage"] += size * abs(price - market)
        self.entry_times.append(time)
        self.position = {
            "side": side,
            "entry": price,
            "entry_market": market,
            "entry_candle": candle,
            "entry_time": time,
            "size": size,
            "leverage": leverage,
            "stop": stop,
            "target": target,
            "liquidation": liquidation,
            "entry_fee": fee,
        }

    # ---- sections 4 and 5: levels, size, leverage, risk

    def levels(self, order, side, price):
        stop = order.get("stop_price") or None
        if stop is None and order.get("stop_pct"):
            d = order["stop_pct"]
            stop = price * (1 - d) if side == "long" else price * (1 + d)
        target = order.get("target_price") or None
        if target is None and order.get("target_pct"):
            d = order["target_pct"]
            target = price * (1 + d) if side == "long" else price * (1 - d)
        return stop, target

    def on_right_side(self, side, price, stop, target):
        if side == "long":
            return (stop is None or stop < price) and (target is None or target > price)
        return (stop is None or stop > price) and (target is None or target < price)

    def tightened(self, side, price, stop):
        if side == "long":
            floor = price * 0.98
            return floor if stop is None or stop < floor else stop
        ceiling = price * 1.02
        return ceiling if stop is None or stop > ceiling else stop

    def leverage(self, order):
        if not self.rules["allow_leverage"] or order.get("leverage") is None:
            return 1
        asked = int(order["leverage"])
        return max(1, min(asked, 5, int(self.rules["max_leverage"])))

    def size_share(self, order):
        if order.get("size") is None:
            return self.rules["max_position_size"]
        return min(order["size"], self.rules["max_position_size"])

    def most_per_equity(self, side, price, stop, liquidation):
        s, f = self.rules["slippage"], self.rules["fee"]
        if side == "long":
            if liquidation is None or (stop is not None and stop >= liquidation):
                out = max(0, stop * (1 - s))
            else:
                out = liquidation
            loss_of_one = (price - out) + f * price + f * out
        else:
            if liquidation is None or (stop is not None and stop <= liquidation):
                out = stop * (1 + s)
            else:
                out = liquidation
            loss_of_one = (out - price) + f * price + f * out
        share = self.rules["max_loss_per_trade"]
        if self.rules["mode"] == "monk":
            share = min(share, 0.01)
        return share / loss_of_one

    # ---- section 2, point 3

    def protect(self, t):
        p = self.position
        if p is None:
            return
        if p["side"] == "long":
            self.protect_long(p, t)
        else:
            self.protect_short(p, t)

    def protect_long(self, p, t):
        time, open_, high, low, _ = self.candles[t]
        stop, target, liquidation = p["stop"], p["target"], p["liquidation"]
        if stop is not None and open_ <= stop and p["entry_candle"] != t:
            self.leave(self.slipped_exit("long", open_), open_, t, time, "stop_loss")
            return
        if target is not None and open_ >= target:
            self.leave(target, target, t, time, "take_profit")
            return
        hit_stop = stop is not None and low <= stop
        hit_liquidation = liquidation is not None and low <= liquidation
        hit_target = target is not None and high >= target
        stop_is_first = hit_stop and (not hit_liquidation or stop >= liquidation)
        self.leave_within(p, t, hit_stop or hit_liquidation, hit_target, stop_is_first)

    def protect_short(self, p, t):
        time, open_, high, low, _ = self.candles[t]
        stop, target, liquidation = p["stop"], p["target"], p["liquidation"]
        if stop is not None and open_ >= stop and p["entry_candle"] != t:
            self.leave(self.slipped_exit("short", open_), open_, t, time, "stop_loss")
            return
        if target is not None and open_ <= target:
            self.leave(target, target, t, time, "take_profit")
            return
        hit_stop = stop is not None and high >= stop
        hit_liquidation = liquidation is not None and high >= liquidation
        hit_target = target is not None and low <= target
        stop_is_first = hit_stop and (not hit_liquidation or stop <= liquidation)
        self.leave_within(p, t, hit_stop or hit_liquidation, hit_target, stop_is_first)

    def leave_within(self, p, t, hit_loss, hit_target, stop_is_first):
        when = self.close_time(t)
        both = hit_loss and hit_target
        if both:
            self.ambiguous += 1
        if hit_target and (not hit_loss or self.rules["intrabar"] == "optimistic"):
            self.leave(p["target"], p["target"], t, when, "take_profit", ambiguous=both)
        elif hit_loss and stop_is_first:
            paid = self.slipped_exit(p["side"], p["stop"])
            self.leave(paid, p["stop"], t, when, "stop_loss", ambiguous=both)
        elif hit_loss:
            price = p["liquidation"]
            self.leave(price, price, t, when, "liquidation", ambiguous=both)

    # ---- leaving a position

    def slipped_exit(self, side, price):
        s = self.rules["slippage"]
        return price * (1 - s) if side == "long" else price * (1 + s)

    def leave_at_close(self, t, why):
        close = self.candles[t][4]
        self.leave(
            self.slipped_exit(self.position["side"], close), close, t, self.close_time(t), why
        )
        self.curve[t] = self.realised_equity()

    def leave(self, price, market, candle, time, why, *, ambiguous=False):
        p, self.position = self.position, None
        moved = price - p["entry"] if p["side"] == "long" else p["entry"] - price
        market_moved = market - p["entry_market"]
        if p["side"] == "short":
            market_moved = -market_moved
        margin = p["entry"] * p["size"] / p["leverage"]
        fee = price * p["size"] * self.rules["fee"]
        net = moved * p["size"] - fee - p["entry_fee"]
        if why == "liquidation" and net < -margin:
            fee -= -margin - net
            net = -margin
        self.costs["fees"] += fee
        self.costs["slippage"] += abs(price - market) * p["size"]
        self.trades.append(
            p
            | {
                "exit": price,
                "exit_candle": candle,
                "exit_time": time,
                "why": why,
                "net": net,
                "on_margin": net / margin,
                "fees": fee + p["entry_fee"],
                "gross": market_moved * p["size"],
                "ambiguous": ambiguous,
            }
        )

    # ---- section 2, points 4 and 5

    def realised_equity(self):
        return self.rules["capital"] + sum(trade["net"] for trade in self.trades)

    def mark(self, t):
        equity = self.realised_equity()
        p = self.position
        if p is not None:
            self.exposed += 1
            close = self.candles[t][4]
            moved = close - p["entry"] if p["side"] == "long" else p["entry"] - close
            equity += moved * p["size"] - p["entry_fee"]
        self.curve.append(equity)

    def guard(self, t):
        highest = max([self.rules["capital"], *self.curve])
        equity, capital = self.curve[t], self.rules["capital"]
        limit, stop = self.rules["max_total_drawdown"], self.rules["auto_stop_loss"]
        if limit is not None and (highest - equity) / highest >= limit - ROUNDING:
            self.ended = "max_drawdown_exceeded"
        elif stop is not None and (capital - equity) / capital >= stop - ROUNDING:
            self.ended = "max_loss_exceeded"
        if self.ended and self.position is not None:
            self.leave_at_close(t, "guard")

    def worst_drawdown(self):
        points = [self.rules["capital"], *self.curve]
        return max(1 - point / max(points[: index + 1]) for index, point in enumerate(points))

    # ---- section 2, point 6

    def decide(self, t, decision, *, is_last):
        if decision is None or decision["action"] == "hold":
            return
        if decision["action"] == "close" and self.position is None:
            return
        reason = self.refusal(t, decision, is_last)
        if reason is not None:
            self.reject(t, reason)
            return
        self.order = decision | {"candle": t}

    def refusal(self, t, decision, is_last):
        if is_last:
            return "end_of_test"
        if decision["action"] == "close":
            return None
        if self.position is not None:
            return "position_open"
        if self.daily_loss_was_reached(t):
            return "daily_loss"
        return self.monk_refusal(t, decision) if self.rules["mode"] == "monk" else None

    def monk_refusal(self, t, decision):
        if self.entry_times and self.close_time(t) - self.entry_times[-1] < 4 * HOUR:
            return "frequency"
        has_stop = decision.get("stop_price") or decision.get("stop_pct")
        return None if has_stop or self.rules["safety"] else "stop_required"

    def daily_loss_was_reached(self, t):
        limit = self.rules["max_daily_loss"]
        if limit is None:
            return False
        day = self.candles[t][0] // DAY
        start = self.rules["capital"]
        for index in range(t + 1):
            if self.candles[index][0] // DAY < day:
                start = self.curve[index]
            elif start <= 0 or (start - self.curve[index]) / start >= limit - ROUNDING:
                return True
        return False

    def reject(self, candle, reason):
        self.rejections.append((candle, reason))

    def close_time(self, t):
        return self.candles[t][0] + self.rules["timeframe"]
