"""`alphalab certificates revoke`: withdraws a certificate in the operator's name."""

from datetime import UTC, datetime

from db.engine import Database
from db.models import CertificateRecord
from db.repositories.certificates import AllCertificates
from local.data_directory import NoSuchCertificate


async def revoke(database: Database, code: str, reason: str) -> CertificateRecord:
    """Withdraw a certificate; one that was withdrawn before keeps its reason.

    Raises `NoSuchCertificate`.
    """
    async with database.as_system() as session:
        found = await AllCertificates(session).revoke(
            code.strip().upper(), reason, at=datetime.now(UTC)
        )
    if found is None:
        raise NoSuchCertificate(f"There is no certificate with the code {code.strip()[:40]}.")
    return found
