"""Column types that every table is built from, and the metadata they share."""

import math
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from sqlalchemy import CheckConstraint, Dialect, MetaData, Numeric, text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel
from typing_extensions import override

_PERCENT_LIMIT = 999_999.999999


class Base(SQLModel):
    """The ancestor of all tables and of the records that are read from them."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


class AmountType(TypeDecorator[float]):
    """A price, size or amount of money: NUMERIC in the database, a float in Python.

    Bound by its shortest repr, because PostgreSQL keeps only 15 digits of a float8 it casts.
    """

    impl = Numeric(asdecimal=False)
    cache_ok = True

    @override
    def process_bind_param(self, value: float | None, dialect: Dialect) -> Decimal | None:
        """Refuse NaN and infinity, which NUMERIC would store."""
        if value is None:
            return None
        if not math.isfinite(value):
            raise ValueError(f"{value} is no amount")
        return Decimal(repr(float(value)))


class PercentType(TypeDecorator[float]):
    """A percentage in NUMERIC(12,6).

    Clamped to what the column holds: a return of more than a million percent must not make
    the transaction that stores a result fail on every retry.
    """

    impl = Numeric(12, 6, asdecimal=False)
    cache_ok = True

    @override
    def process_bind_param(self, value: float | None, dialect: Dialect) -> Decimal | None:
        """Refuse NaN; clamp the rest."""
        if value is None:
            return None
        if math.isnan(value):
            raise ValueError("NaN is no percentage")
        return Decimal(repr(float(min(max(value, -_PERCENT_LIMIT), _PERCENT_LIMIT))))


_UTC = TIMESTAMP(timezone=True)
_NOW = {"server_default": text("now()")}

# For columns without a default: the arguments of a second Field would take the place of these.
Amount = Annotated[float, Field(sa_type=AmountType)]
OptionalAmount = Annotated[float | None, Field(default=None, sa_type=AmountType)]
Percent = Annotated[float, Field(sa_type=PercentType)]
OptionalPercent = Annotated[float | None, Field(default=None, sa_type=PercentType)]
Timestamp = Annotated[datetime, Field(sa_type=_UTC)]
OptionalTimestamp = Annotated[datetime | None, Field(default=None, sa_type=_UTC)]
Json = Annotated[dict[str, Any], Field(sa_type=JSONB)]
OptionalJson = Annotated[
    dict[str, Any] | None, Field(default=None, sa_type=JSONB(none_as_null=True))
]
# Set by the database, so absent from a row that is still to be inserted.
StampedByDatabase = Annotated[
    datetime | None, Field(default=None, sa_type=_UTC, nullable=False, sa_column_kwargs=_NOW)
]


def default(value: str) -> dict[str, Any]:
    """Column arguments that give a column this SQL default, for rows written by plain SQL."""
    return {"server_default": text(value)}


def one_of(column: str, *values: str) -> CheckConstraint:
    """A CHECK that holds a text column to an enumeration."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def check(name: str, condition: str) -> CheckConstraint:
    """A named CHECK."""
    return CheckConstraint(condition, name=name)
