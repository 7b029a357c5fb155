"""Everything that the trading core refuses.

TradingError (ValueError)
├── UnknownTimeframe
├── UnknownAsset
├── UnknownIndicator    the identifier
├── InvalidFormula      the column at which it went wrong
├── InvalidCandles      the first offending line, where there is one
├── InvalidDecision
└── InvalidRules
"""


class TradingError(ValueError):
    """Base of all that the core refuses; the message is fit for the user."""


class UnknownTimeframe(TradingError):
    pass


class UnknownAsset(TradingError):
    pass


class UnknownIndicator(TradingError):
    def __init__(self, identifier: str, message: str | None = None) -> None:
        super().__init__(message or f"Unknown indicator: {identifier}")
        self.identifier = identifier


class InvalidFormula(TradingError):
    """`column` counts characters of the formula from 1."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.column = column


class InvalidCandles(TradingError):
    """`line` is the line, or the index, of the first candle that is wrong."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class InvalidDecision(TradingError):
    pass


class InvalidRules(TradingError):
    pass
