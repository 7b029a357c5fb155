"""In whose name the tests issue certificates."""

from activities.certificates import CertificateIssuer
from certificates.signing import SigningKey, new_seed

KEY = SigningKey.from_seed(new_seed())
ISSUER = CertificateIssuer(key=KEY, public_url="http://api.test", engine_version="1.2.3")
