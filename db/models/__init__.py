"""Tables, one file per small group, and the records that are read from them."""

from db.models.agents import Agent, AgentRecord, AgentVersion, AgentVersionRecord
from db.models.api_keys import ApiKey, ApiKeyRecord
from db.models.candles import DataSet, DataSetRecord, StoredCandle, WatchCandle
from db.models.certificates import Certificate, CertificateRecord, NewCertificate
from db.models.columns import Base
from db.models.decisions import Decision, DecisionRecord, ModelCall
from db.models.exports import Export, ExportRecord, NewExport
from db.models.idempotency import IdempotencyKey, IdempotencyRecord
from db.models.inbox import (
    ActivityLog,
    ActivityRecord,
    NewActivity,
    NewNotification,
    Notification,
    NotificationRecord,
)
from db.models.results import NewResult, ResultListed, ResultRecord, TestResult
from db.models.sessions import NewSession, SessionRecord, SessionStatus, TradingSession
from db.models.steps import Step
from db.models.trades import Trade, TradeRecord
from db.models.users import User, UserRecord, UserSettings, UserSettingsRecord
from db.models.webhooks import WebhookDelivery

__all__ = [
    "ActivityLog",
    "ActivityRecord",
    "Agent",
    "AgentRecord",
    "AgentVersion",
    "AgentVersionRecord",
    "ApiKey",
    "ApiKeyRecord",
    "Base",
    "Certificate",
    "CertificateRecord",
    "DataSet",
    "DataSetRecord",
    "Decision",
    "DecisionRecord",
    "Export",
    "ExportRecord",
    "IdempotencyKey",
    "IdempotencyRecord",
    "ModelCall",
    "NewActivity",
    "NewCertificate",
    "NewExport",
    "NewNotification",
    "NewResult",
    "NewSession",
    "Notification",
    "NotificationRecord",
    "ResultListed",
    "ResultRecord",
    "SessionRecord",
    "SessionStatus",
    "Step",
    "StoredCandle",
    "TestResult",
    "Trade",
    "TradeRecord",
    "TradingSession",
    "User",
    "UserRecord",
    "UserSettings",
    "UserSettingsRecord",
    "WatchCandle",
    "WebhookDelivery",
]
