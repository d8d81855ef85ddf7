"""What servers that speak S3 say when something is wrong, and what that means for the files.

An error may be about one key, or about the whole storage: throttled, unwell, credentials expired. The
latter must not burn the files' attempts, however it arrives: as the answer to a request, inside an answer
that says 200, or beside a single key of a thousand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pglapse.storage import MISSING, Outcome
from pglapse.text import printable

LONGEST_REST = 300.0  # seconds; a server that asks for more is asked again after this

BUSY = {
    "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "Throttling", "ThrottlingException",
    "ThrottledException", "RequestThrottled", "RequestThrottledException", "RequestLimitExceeded",
    "TooManyRequests", "TooManyRequestsException", "BandwidthLimitExceeded", "LimitExceeded", "429", "503",
}  # fmt: skip
UNWELL = {
    "InternalError", "InternalServerError", "RequestTimeout", "RequestTimeoutException", "OperationTimedOut",
    "XMinioServerNotInitialized", "500", "502", "504", "408",
}  # fmt: skip
CREDENTIALS = {
    "InvalidAccessKeyId": "the server does not know the access key",
    "SignatureDoesNotMatch": "the secret key does not fit the access key, or a proxy alters requests",
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "RequestExpired": "the credentials have expired, or this machine's clock is wrong",
    "TokenRefreshRequired": "the credentials have expired",
    "InvalidToken": "the session token is not valid",
    "InvalidClientTokenId": "the server does not know the access key",
    "UnrecognizedClientException": "the server does not know the access key",
    "InvalidSecurity": "the credentials are not valid",
    "AuthFailure": "the credentials are not valid",
    "MissingSecurityHeader": "the request was not signed",
    "MissingAuthenticationToken": "the request was not signed",
}
WHOLE = {
    "NoSuchBucket": "there is no such bucket",
    "InvalidBucketName": "this can't be the name of a bucket",
    "RequestTimeTooSkewed": "this machine's clock is wrong by more than 15 minutes",
    "AllAccessDisabled": "the bucket is closed for everybody",
    "AccountProblem": "there is a problem with the account",
    "AccountSuspended": "the account is suspended",
    "UserSuspended": "the account is suspended",
    "UserDisabled": "the account is disabled",
    "NotSignedUp": "the account is not signed up for S3",
    "InvalidPayer": "the account can't pay",
    "AccessPointNotFound": "there is no such access point",
    "PermanentRedirect": "the bucket is in another region",
    "TemporaryRedirect": "the bucket is being moved; try again later",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
    "IllegalLocationConstraintException": "the bucket is in another region",
    "301": "the bucket is in another region",
    "307": "the bucket is being moved; try again later",
}
GONE = {"NoSuchKey", "NoSuchVersion"}
HOPELESS = {"KeyTooLongError", "InvalidURI", "InvalidObjectName", "XMinioInvalidObjectName"}
CONDITION = {"PreconditionFailed", "412", "ConditionalRequestConflict"}
NOT_HERE = {"NotImplemented", "MethodNotAllowed", "UnsupportedOperation", "501", "405"}
DENIED = {"AccessDenied", "AccessDeniedException", "Forbidden", "403"}


@dataclass(eq=False)
class Refusal(Exception):
    """The server said no to a request, or to one key of it."""

    code: str
    """S3's name for it, or the HTTP status where the answer has no body."""
    said: str = ""
    status: int = 0
    region: str | None = None
    retry_in: float | None = None

    def __str__(self) -> str:
        said = printable(self.said, 300)
        return f"{printable(self.code, 60)}: {said}" if said else printable(self.code, 60)

    @property
    def whole(self) -> str | None:
        """What is wrong with the storage as a whole, for people; None when only this request failed."""
        if self.code in BUSY or self.status in (429, 503):
            return f"the server asks for fewer requests or is overloaded ({self})"
        if self.code in UNWELL or self.status in (408, 500, 502, 504):
            return f"the server reports trouble of its own ({self})"
        if known := CREDENTIALS.get(self.code):
            return f"{known} ({self})"
        if known := WHOLE.get(self.code):
            region = f'; set region = "{printable(self.region, 60)}"' if self.region else ""
            return f"{known}{region} ({self})"
        return None

    @property
    def outcome(self) -> Outcome:
        """What becomes of a file whose own deletion was refused."""
        if self.code in GONE:
            return MISSING
        return Outcome("refused" if self.code in HOPELESS else "failed", error=str(self))


def rest(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to be left alone, by the header Retry-After."""
    asked = headers.get("retry-after", "").strip()
    if not asked:
        return None
    try:
        seconds = float(asked)
    except ValueError:
        try:
            moment = parsedate_to_datetime(asked)
        except ValueError:
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        seconds -= datetime.now(UTC).timestamp()
    return min(seconds, LONGEST_REST) if seconds > 0 else None
