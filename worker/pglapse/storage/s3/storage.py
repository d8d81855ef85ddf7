"""Delete objects of a bucket: each file of a batch gets the server's own word on it.

Trouble of the whole storage, from throttling to expired credentials, comes out as `Away` and costs no file
an attempt. A bucket that keeps versions is worked with only once somebody said how: there, a delete removes
nothing.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from pglapse.paths import BadPath
from pglapse.storage import MISSING, RELEASED, Away, Batch, Expected, Outcome
from pglapse.storage.s3.calls import Gone, Target, Version, Versioning
from pglapse.storage.s3.guard import difference, only_etag
from pglapse.storage.s3.keys import fits_xml, key_of
from pglapse.storage.s3.sending import Answer, Sender
from pglapse.storage.s3.settings import MOST, Versions
from pglapse.storage.s3.troubles import CONDITION, DENIED, NOT_HERE, Refusal

if TYPE_CHECKING:  # it imports boto3, which need not be here
    from pglapse.storage.s3.client import Client

log = logging.getLogger(__name__)

AT_A_TIME = 100  # keys whose versions are listed before the first of these is deleted
FRESH = 5.0  # seconds for which a look at the bucket vouches for answers without a reason
UNMENTIONED = Outcome("failed", error="the server's answer does not mention this key")
ONLY_HIDDEN = Outcome(
    "failed", error="the bucket keeps versions since a short while ago: it only got a delete marker"
)


@dataclass(frozen=True, slots=True)
class _Item:
    """A file of the batch and its key."""

    position: int
    key: str
    expected: tuple[Expected, ...]


@dataclass(slots=True)
class _Plan:
    """All versions of one key, and how their deletion goes."""

    item: _Item
    versions: list[Version]
    left: set[str]
    """The ids of those that are not deleted yet, or not known to be."""
    wrong: Outcome | None = None

    @property
    def outcome(self) -> Outcome | None:
        """What became of the file, once nothing is left or something went wrong."""
        if self.wrong or self.left:
            return self.wrong
        content = [version.found.size or 0 for version in self.versions if not version.marker]
        return Outcome("deleted", bytes=sum(content)) if content else MISSING


class S3Storage:
    """A bucket, or the part of it below a prefix."""

    def __init__(
        self,
        name: str,
        client: "Client",
        pool: Executor,
        *,
        prefix: str = "",
        versions: Versions = "refuse",
        batch_size: int = MOST,
    ) -> None:
        self.name = name
        self.prefix = prefix
        self.versions = versions
        self._client = client
        self._sender = Sender(client, pool, batch_size)
        self._versioning: Versioning | None = None
        self._looked_at = float("-inf")
        self._told = False
        self._unconditional = False

    def check(self) -> None:
        """Look at the bucket once, and again after each trouble; raises `Away`."""
        if self._versioning is None:
            self._versioning = self._look()
            self._looked_at = monotonic()

    def delete(self, batch: Batch) -> None:
        """Delete objects; raises `Away`."""
        try:
            self.check()
            self._delete(batch)
        except Away:
            self._versioning = None
            raise

    def _look(self) -> Versioning:
        where = self._client.where
        try:
            found = self._client.versioning()
        except Refusal as refusal:
            if refusal.code not in DENIED:
                raise self._client.refused(refusal) from refusal
            if self.versions == "marker":
                return Versioning("unknown")
            raise Away(
                f"{where}: no permission to see whether it keeps versions ({refusal}); grant "
                's3:GetBucketVersioning, or accept whatever a delete does there: versions = "marker"'
            ) from refusal
        if found.status and self.versions == "refuse":
            raise Away(
                f"{where} keeps versions (versioning is {found.status.lower()}): a delete would only add a "
                'marker and free nothing. Set versions = "purge" to delete all versions of a file, or '
                'versions = "marker" to add markers and leave the rest to a lifecycle rule'
            )
        if found.mfa_delete and self.versions == "purge":
            raise Away(
                f"{where} wants a one-time code for each deletion of a version (MFA delete), which a worker "
                'does not have; versions = "marker" needs none'
            )
        if found.status and self.versions == "marker" and not self._told:
            self._told = True
            log.warning(
                '%s keeps versions: files only get a delete marker (versions = "marker"), their bytes stay '
                "until a lifecycle rule removes them",
                where,
            )
        return found

    def _delete(self, batch: Batch) -> None:
        items = self._items(batch)
        if self.versions == "purge" and self._versioning and self._versioning.status:
            for start in range(0, len(items), AT_A_TIME):
                self._purge(batch, items[start : start + AT_A_TIME])
            return
        together = [item for item in items if self._goes_in_bulk(item)]
        alone = [item for item in items if not self._goes_in_bulk(item)]
        size = self._sender.batch_size
        for start in range(0, len(together), size):
            part = together[start : start + size]
            if self._sender.in_bulk:
                self._delete_together(batch, [item for item in part if batch.begin(item.position)])
            else:
                alone += part
        self._sender.each(lambda item: self._delete_alone(batch, item), alone, lambda: self._over(batch))
        self._still_unversioned()

    def _items(self, batch: Batch) -> list[_Item]:
        """The files that have a key; the others are refused."""
        items: list[_Item] = []
        for position, file in enumerate(batch.files):
            try:
                items.append(_Item(position, key_of(self.prefix, file.path), file.expected))
            except BadPath as error:
                if batch.begin(position):
                    batch.end(position, Outcome("refused", error=str(error)))
        return items

    def _goes_in_bulk(self, item: _Item) -> bool:
        """Whether a list of keys can carry it, with its guard: only AWS is known to heed an ETag there."""
        if not fits_xml(item.key):
            return False
        return not item.expected or (self._client.is_aws and only_etag(item.expected) is not None)

    def _delete_together(self, batch: Batch, items: Sequence[_Item]) -> None:
        """Delete files that are begun, with as few requests as the server allows."""
        waiting: dict[Target, list[_Item]] = {}
        for item in items:
            waiting.setdefault(Target(item.key, etag=only_etag(item.expected)), []).append(item)
        doubtful: list[_Item] = []

        def tell(target: Target, answer: Answer) -> None:
            for item in waiting.pop(target):
                if target.etag is not None and isinstance(answer, Refusal) and answer.code in CONDITION:
                    doubtful.append(item)
                else:
                    batch.end(item.position, self._outcome(answer))

        self._sender.send(list(waiting), tell, lambda: self._over(batch))
        self._sender.each(
            lambda item: batch.end(item.position, self._compared(item)), doubtful, lambda: self._over(batch)
        )
        self._still_unversioned()
        for item in (item for left in waiting.values() for item in left):
            batch.end(item.position, RELEASED)

    def _delete_alone(self, batch: Batch, item: _Item) -> None:
        """Delete a file with a request of its own."""
        if batch.begin(item.position):
            if item.expected:
                outcome = self._compared(item)
            else:
                outcome = self._outcome(self._sender.one(Target(item.key)))
            batch.end(item.position, outcome)

    def _compared(self, item: _Item) -> Outcome:
        """Delete an object only if it is one of those that were condemned."""
        for _ in range(2):
            try:
                found = self._client.head(item.key)
            except Refusal as refusal:
                return self._not_found(refusal)
            if differs := difference(item.expected, found):
                return Outcome("changed", error=differs)
            answer = self._delete_as_found(item.key, found)
            if not (isinstance(answer, Refusal) and answer.code in CONDITION):
                outcome = self._outcome(answer)
                if outcome.verdict == "deleted" and answer == Gone(marker=False):
                    return Outcome("deleted", bytes=found.size or 0)
                return outcome
        return Outcome("failed", error="it is being replaced again and again")

    def _delete_as_found(self, key: str, found: Expected) -> Answer:
        """Delete an object unless it was replaced since it was looked at, where the server can tell."""
        if found.etag is not None and not self._unconditional:
            answer = self._sender.one(Target(key, etag=found.etag))
            if not (isinstance(answer, Refusal) and answer.code in NOT_HERE):
                return answer
            self._unconditional = True
            log.warning(
                "%s knows no conditional delete (%s): an object that is replaced in the moment between "
                "being looked at and being deleted is not noticed",
                self._client.where,
                answer,
            )
        return self._sender.one(Target(key))

    def _not_found(self, refusal: Refusal) -> Outcome:
        """What an object is that could not be looked at.

        The answer to HEAD has no body, so 404 may be the bucket and 400 or 403 the credentials: ask for
        something whose answer has one.
        """
        if monotonic() - self._looked_at > FRESH:
            self._versioning = self._look()
            self._looked_at = monotonic()
        if refusal.status == 404:
            return MISSING
        return Outcome("failed", error=f"it can't be compared with what was condemned: {refusal}")

    def _outcome(self, answer: Answer) -> Outcome:
        if answer is None:
            return UNMENTIONED
        if isinstance(answer, Refusal):
            return answer.outcome
        if answer.marker and self.versions != "marker":
            self._versioning = None
            return ONLY_HIDDEN
        return Outcome("deleted")

    def _over(self, batch: Batch) -> bool:
        return batch.over or self._versioning is None

    def _still_unversioned(self) -> None:
        if self._versioning is None:
            raise Away(f"{self._client.where} keeps versions since a short while ago")

    def _purge(self, batch: Batch, items: Sequence[_Item]) -> None:
        """Delete all versions of some keys, the latest of each last, so that no older one comes to light."""
        plans: list[_Plan] = []
        self._sender.each(lambda item: self._plan(batch, item, plans), items, lambda: batch.over)
        try:
            self._delete_versions(batch, plans, latest=False)
            self._delete_versions(batch, plans, latest=True)
        finally:
            undone: list[_Plan] = []
            for plan in plans:
                if outcome := plan.outcome:
                    batch.end(plan.item.position, outcome)
                else:
                    undone.append(plan)
        for plan in undone:
            batch.end(plan.item.position, RELEASED)

    def _plan(self, batch: Batch, item: _Item, plans: list[_Plan]) -> None:
        """Begin a file and find out what there is to delete."""
        if not batch.begin(item.position):
            return
        try:
            versions = self._client.versions(item.key)
        except Refusal as refusal:
            if refusal.status != 400:
                raise self._client.refused(refusal, "s3:ListBucketVersions") from refusal
            batch.end(item.position, refusal.outcome)
            return
        content = [version.found for version in versions if not version.marker]
        if content and (differs := difference(item.expected, content[0])):
            batch.end(item.position, Outcome("changed", error=differs))
        else:
            plans.append(_Plan(item, versions, {version.id for version in versions}))

    def _delete_versions(self, batch: Batch, plans: Sequence[_Plan], *, latest: bool) -> None:
        """Delete the older versions of each key, or else the latest where no older one is left."""
        wanted: dict[Target, _Plan] = {}
        for plan in plans:
            newest = {version.id for version in plan.versions if version.latest}
            older_are_gone = plan.left <= newest
            doomed = (plan.left if older_are_gone else set()) if latest else plan.left - newest
            wanted |= {Target(plan.item.key, one): plan for one in doomed}

        def tell(target: Target, answer: Answer) -> None:
            plan = wanted[target]
            outcome = Outcome("deleted") if isinstance(answer, Gone) else self._outcome(answer)
            if outcome.verdict in ("deleted", "missing"):
                plan.left.discard(target.version or "")
            else:
                plan.wrong = Outcome(outcome.verdict, error=f"version {target.version}: {outcome.error}")

        self._sender.send(list(wanted), tell, lambda: batch.over)
