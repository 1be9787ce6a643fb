"""Ask whoever signed up for a token that only the owner of the bucket can read."""

import hashlib
import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from xmode_transfer import telemetry
from xmode_transfer.access.trying import attempt
from xmode_transfer.aws.probing import Prober, ReservedPrefix
from xmode_transfer.config import Customer
from xmode_transfer.model.errors import ObjectExists, OwnershipUnproven, XmodeError
from xmode_transfer.model.findings import CHALLENGE_TRIES, Challenge, Proof
from xmode_transfer.model.keys import count, token_key
from xmode_transfer.telemetry import Event
from xmode_transfer.transfer.context import Context, held

_WHY = {
    Proof.NONE: "no token was put into its bucket yet",
    Proof.OPEN: "the token in its bucket was not returned yet",
    Proof.USED_UP: f"{CHALLENGE_TRIES} wrong tokens were given",
    Proof.EXPIRED: "the token in its bucket has expired",
}


def challenge(context: Context, prober: Prober, customer: Customer, *, person: str) -> Challenge:
    """Put a token into the customer's bucket, and take an earlier one away. We keep its SHA-256, recorded
    first, so that a token that we do not know of is in no bucket. Raises AlreadyRunning, and the errors of
    the role and of S3."""
    destination, now = customer.destination, context.clock.now()
    token = f"xmode-{secrets.token_urlsafe(24)}"  # it never begins like an option
    telemetry.protect(token)
    key = token_key(destination.prefix, secrets.token_hex(16))
    made = Challenge(customer.name, destination.bucket, key, _digest(token), now, person)
    with (
        held(context.ledger, f"ownership/{customer.name}", context.holder) as lease,
        _place(context, prober, customer) as place,
    ):
        earlier = context.ledger.challenges.last(customer.name)
        if earlier is not None:
            _take_away(place, earlier, destination.bucket)
        context.ledger.challenges.record(lease, made)
        body = f"{token}\n".encode()
        try:
            place.put(key, body, new=True)
        except ObjectExists:  # an attempt with a lost response has put it
            if place.read(key) != body:
                raise
    telemetry.log(Event.ONBOARDING_CHALLENGED, customer=customer.name, key=key, by=person)
    return made


def prove(context: Context, prober: Prober, customer: Customer, token: str | None, *, person: str) -> Proof:
    """Return the state of the proof, after comparing ``token``, if one is given. Takes the object away once
    its token can no longer be returned. Raises OwnershipUnproven for a token that proves nothing,
    AlreadyRunning, and VendorIdentityError."""
    bucket, now = customer.destination.bucket, context.clock.now()
    tries_left = None
    # Of two processes at once, each would compare a third token.
    with held(context.ledger, f"ownership/{customer.name}", context.holder) as lease:
        last = context.ledger.challenges.last(customer.name)
        proof = Proof.NONE if last is None else last.proof(bucket, now)
        if last is not None and proof is Proof.OPEN and token is not None:
            telemetry.protect(token)
            last = answered(last, token, person, now)
            context.ledger.challenges.record(lease, last)
            proof = last.proof(bucket, now)
            if proof is Proof.PROVEN:
                telemetry.log(Event.ONBOARDING_PROVEN, customer=customer.name, by=person)
            else:
                tries_left = CHALLENGE_TRIES - last.tries
                fields = {"customer": customer.name, "by": person, "tries_left": tries_left}
                telemetry.warn(Event.ONBOARDING_WRONG_TOKEN, **fields)
        if last is not None and proof not in (Proof.OPEN, Proof.NONE):
            with _place(context, prober, customer) as place:
                _take_away(place, last, bucket)
    if token is not None and proof is not Proof.PROVEN:
        raise unproven(customer, proof, tries_left)
    return proof


def answered(challenge: Challenge, token: str, person: str, now: datetime) -> Challenge:
    """Compare in constant time, and count a wrong token."""
    if hmac.compare_digest(_digest(token), challenge.token_sha256):
        return replace(challenge, confirmed_at=now, confirmed_by=person)
    return replace(challenge, tries=challenge.tries + 1)


def unproven(customer: Customer, proof: Proof, tries_left: int | None = None) -> OwnershipUnproven:
    """``tries_left``: after a wrong token."""
    name, bucket, company = customer.name, customer.destination.bucket, customer.company
    why = _WHY[proof]
    if tries_left is not None:
        why = f"that is not the token in the bucket ({count(tries_left, 'try')} left)"
    if proof is Proof.OPEN:
        hint = f"ask {company} for the token, then run `xmode-transfer onboard --confirm {name} --token -`"
    else:
        hint = f"run `xmode-transfer onboard --challenge {name}`, then ask {company} for the token"
    return OwnershipUnproven(f"{name} has not proven that the bucket {bucket} is its own: {why}", hint=hint)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


@contextmanager
def _place(context: Context, prober: Prober, customer: Customer) -> Iterator[ReservedPrefix]:
    prober.verify_identity()
    region = context.ledger.checks.capabilities(customer.name).region
    place = prober.reserve(customer, region)
    try:
        yield place
    finally:
        place.close()


def _take_away(place: ReservedPrefix, last: Challenge, bucket: str) -> None:
    """Delete the object if it is there; a delete marker would be added each time. The session ends at the
    reserved place of today's bucket and prefix."""
    if last.bucket != bucket or not last.key.startswith(place.prefix):
        return
    error = attempt(lambda: place.head(last.key) and place.delete(last.key))
    if isinstance(error, XmodeError):
        fields = error.log_context()
        telemetry.warn(Event.ONBOARDING_TOKEN_LEFT, customer=last.customer, key=last.key, **fields)
